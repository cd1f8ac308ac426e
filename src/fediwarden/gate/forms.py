"""What a request carries: a picture's bytes as they are, or a form with exactly one part; nothing is written, and no name in it is used.

A picture of nothing is none: a proxy that drops the body would otherwise have every upload pass as one that cannot be decoded.

One grammar and no other, because whatever stands beside the picture would pass without a look: no text before or after the form, no
second part, no encoding. The parsers of libraries (python-multipart, `email`) forgive more than that: they pass over what stands before
the first boundary and after the last one.
"""

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass

from fediwarden.errors import FediwardenError

HEAD = 8 << 10  # bytes of a part's head at most; that of pict-rs 0.6 has some 120
BLANK = 1 << 10  # bytes that a body may begin with before it is told what it is not
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - RFC 9110, 5.6.2
QUOTED = r'"(?:[^"\\\x00-\x1f\x7f]|\\[^\x00-\x1f\x7f])*"'
ITEM = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')  # of a list with commas, as a proxy makes it of several lines
PARAMETER = re.compile(rf"[ \t]*;[ \t]*({TOKEN})=({TOKEN}|{QUOTED})")
FIELD = re.compile(rf"({TOKEN}):[ \t]*([^\r\n\0]*)".encode())
BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046, 5.1.1
PICTURES = ("image/", "video/", "application/octet-stream")  # what may be said of a picture that comes in a form
KNOWN = {b"content-disposition", b"content-type", b"content-length", b"content-transfer-encoding"}  # of a part
BLANKS = b"\r\n\t "
NOTHING = "an empty body"
MIME = (b"--", b"content-", b"mime-version:")  # how a form or a letter begins, and no picture does

Header = tuple[bytes, bytes]


class Misread(FediwardenError):
    """What came is neither a picture's bytes nor a form with one part, or not wholly."""


@dataclass(frozen=True, slots=True)
class BodyHead:
    """What the head of a request says of its body."""

    claimed: str  # the picture's type; "" where it is not told
    boundary: bytes | None  # of a form; None where the body is the picture


def said(headers: Iterable[Header]) -> str:
    """Every Content-Type of a request in one line, for the record."""
    return ", ".join(value.decode("latin-1").strip() for name, value in headers if name.lower() == b"content-type")


def head_of(headers: Iterable[Header]) -> BodyHead:
    """What a request carries, in whatever order its lines stand: pict-rs 0.6 sends the picture's type and then the form's.

    Raises: Misread where they say several things, or what neither pict-rs nor pictrs-safety's callers say.
    """
    types: list[str] = []
    for name, value in headers:
        text = value.decode("latin-1").strip()
        match name.lower():
            case b"content-type":
                types += [item.strip() for item in ITEM.findall(text)]
            case b"content-encoding" if text.lower() not in ("", "identity"):
                raise Misread("an encoded body")
            case b"content-transfer-encoding" if text.lower() != "binary":
                raise Misread("an encoded body")
            case b"content-range":
                raise Misread("a part of a body")
            case _:
                pass
    different = [one for one in dict.fromkeys(types) if one]
    forms = [one for one in different if _bare(one).startswith(("multipart", "message"))]
    pictures = [one for one in different if one not in forms]
    if len(forms) > 1 or len(pictures) > 1:
        raise Misread("Content-Types that contradict one another")
    claimed = pictures[0] if pictures else ""
    if not forms:
        return BodyHead(claimed, None)
    if claimed and not _bare(claimed).startswith(PICTURES):
        raise Misread("Content-Types that contradict one another")
    kind, parameters = _parameters(forms[0])
    boundary = parameters.get("boundary", "")
    if kind != "multipart/form-data" or any("*" in name for name in parameters):
        raise Misread("a Content-Type that is not understood")
    if not BOUNDARY.fullmatch(boundary):
        raise Misread("a form without a boundary, or with one that is none")
    return BodyHead(claimed, boundary.encode("ascii"))


class Sent:
    """The picture in one request. Call `open`, then read `data` to its end; both raise Misread."""

    def __init__(self, headers: Iterable[Header], chunks: AsyncIterator[bytes]) -> None:
        self._headers = headers
        self._chunks = chunks
        self._held = b""  # what has come and is not used yet
        self._mark = b""  # what stands before and after the picture in a form
        self._size: int | None = None  # of the picture, where the form tells it

    async def open(self) -> str:
        """Read up to the picture; its type, "" where none is told."""
        head = head_of(self._headers)
        claimed = head.claimed
        if head.boundary is not None:
            self._mark = b"--" + head.boundary
            claimed = await self._part(head)
        while len(begins := self._held.lstrip(BLANKS)) < len(MIME[-1]) and len(self._held) < BLANK and await self._more():
            continue
        if begins.lower().startswith(MIME):
            raise Misread("a form, or nothing, where a picture should be")
        return claimed

    async def data(self) -> AsyncIterator[bytes]:
        """The picture. Ends only where what was sent ends as it should, and was more than blanks."""
        blank = True
        async for chunk in self._data():
            blank = blank and not chunk.strip(BLANKS)
            yield chunk
        if blank:
            raise Misread(NOTHING)

    async def _data(self) -> AsyncIterator[bytes]:
        if not self._mark:
            if self._held:
                yield self._held
            async for chunk in self._chunks:
                yield chunk
            return
        keep = len(self._mark) + 1
        size = 0
        while (end := self._held.find(self._mark)) < 0:
            if len(self._held) > keep:
                size += len(self._held) - keep
                yield self._held[:-keep]
                self._held = self._held[-keep:]
            if not await self._more():
                raise Misread("a form that ends too early")
        if self._held[max(0, end - 2) : end] != b"\r\n":
            raise Misread("a form whose boundary stands in the picture")
        size += end - 2
        if end > 2:
            yield self._held[: end - 2]
        self._held = self._held[end + len(self._mark) :]
        while len(self._held) <= len(b"--\r\n") and await self._more():
            continue
        if self._held not in (b"--", b"--\r\n"):
            whole = len(self._held) > 1
            several = self._held.startswith(b"\r\n")
            raise Misread(
                "a form that ends too early"
                if not whole
                else f"a form with {'several parts' if several else 'more after its end'}"
            )
        if self._size not in (None, size):
            raise Misread("a form that tells another size than it has")

    async def _part(self, head: BodyHead) -> str:
        """Read the head of the only part; the type of what is in it."""
        opening = self._mark + b"\r\n"
        while len(self._held) < len(opening) and await self._more():
            continue
        if not self._held.startswith(opening):
            raise Misread("a form without a part, or with something before it")
        while (end := self._held.find(b"\r\n\r\n", len(opening))) < 0:
            if len(self._held) > HEAD or not await self._more():
                raise Misread("a form whose part does not begin")
        if end > HEAD:
            raise Misread("a form whose part does not begin")
        fields = dict[bytes, str]()
        for name, value in _fields(self._held[len(opening) : end]):
            if name in fields or name not in KNOWN:
                raise Misread("a part with a head that is not understood")
            fields[name] = value.strip()
        self._held = self._held[end + 4 :]
        kind, parameters = _parameters(fields.get(b"content-disposition", ""))
        if kind != "form-data" or not {"name", "name*"} & set(parameters):
            raise Misread("a part without a name")
        if fields.get(b"content-transfer-encoding", "binary").lower() != "binary":
            raise Misread("an encoded part")
        told = fields.get(b"content-length", "")
        if told:
            if not (told.isascii() and told.isdecimal() and len(told) < 20):
                raise Misread("a part with a head that is not understood")
            self._size = int(told)
        inside = fields.get(b"content-type", "")
        if inside and not _bare(inside).startswith(PICTURES):
            raise Misread("a part that is no picture")
        if inside and head.claimed and inside.lower() != head.claimed.lower():
            raise Misread("Content-Types that contradict one another")
        return inside or head.claimed

    async def _more(self) -> bool:
        """Hold one chunk more; False where there is none."""
        chunk = await anext(self._chunks, None)
        if chunk is None:
            return False
        self._held += chunk
        return True


def _fields(head: bytes) -> Iterator[tuple[bytes, str]]:
    for line in head.split(b"\r\n"):
        field = FIELD.fullmatch(line)
        if field is None:
            raise Misread("a part with a head that is not understood")
        yield field[1].lower(), field[2].decode("latin-1")


def _bare(kind: str) -> str:
    """A type without its parameters."""
    return kind.partition(";")[0].strip().lower()


def _parameters(text: str) -> tuple[str, dict[str, str]]:
    """A type and its parameters. Raises: Misread for one that is named twice, or for what is no parameter."""
    bare = text.partition(";")[0]
    found: dict[str, str] = {}
    at = len(bare)
    while at < len(text):
        one = PARAMETER.match(text, at)
        if one is None or one[1].lower() in found:
            raise Misread("a head that is not understood")
        value = one[2]
        found[one[1].lower()] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        at = one.end()
    return bare.strip().lower(), found


def unwrapped(envelope: bytes, claimed: str) -> tuple[str, bytes]:
    """The type and the bytes of the picture in a form that was kept whole, without its request. Raises: Misread."""
    import asyncio

    begins = re.match(rb"--([\x20-\x7e]{1,70})\r\n", envelope)
    if begins is None:
        raise Misread("it begins as no form")
    boundary = begins[1].decode("ascii")
    lines = [(b"content-type", f'multipart/form-data; boundary="{boundary}"'.encode())]
    if claimed:
        lines.append((b"content-type", claimed.encode()))

    async def whole() -> AsyncIterator[bytes]:
        yield envelope

    async def read() -> tuple[str, bytes]:
        sent = Sent(lines, whole())
        kind = await sent.open()
        return kind, b"".join([chunk async for chunk in sent.data()])

    return asyncio.run(read())
