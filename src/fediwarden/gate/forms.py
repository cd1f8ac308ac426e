"""The picture in a form (multipart/form-data), taken out of the stream as it comes: nothing is written, and no name in it is used."""

from collections.abc import AsyncIterator
from email.message import Message
from email.parser import BytesHeaderParser

from fediwarden.errors import FediwardenError

FIELD = "file"  # the only one that pictrs-safety reads
AROUND = 64 << 10  # bytes that a form may have besides the picture
LONGEST = 70  # characters of a boundary, says RFC 2046


class BadForm(FediwardenError):
    """It is no form, holds no picture or several, or did not come whole."""


class Form:
    """One form. Call `open`, then read `data` to its end; both raise BadForm."""

    def __init__(self, chunks: AsyncIterator[bytes], content_type: str) -> None:
        self._chunks = chunks
        self._content_type = content_type
        self._held = b"\r\n"  # what has come and is not used yet; a first boundary begins no line
        self._left = AROUND
        self._mark = b""

    async def open(self) -> str:
        """Read up to the picture; the Content-Type that the form gives it, "" where it gives none."""
        head = Message()
        head["Content-Type"] = self._content_type
        boundary = head.get_boundary("")
        if not 0 < len(boundary) <= LONGEST or not boundary.isascii():
            raise BadForm("a form without a boundary")
        self._mark = b"\r\n--" + boundary.encode()
        await self._skip(self._mark)
        while (part := await self._part()) is not None:
            if part.get_param("name", header="content-disposition") == FIELD:
                return str(part.get("content-type", ""))
            await self._skip(self._mark)
        raise BadForm(f"a form without a field `{FIELD}`")

    async def data(self) -> AsyncIterator[bytes]:
        """The picture. Ends only where the form ends as it should."""
        keep = len(self._mark) - 1
        while (end := self._held.find(self._mark)) < 0:
            if len(self._held) > keep:
                yield self._held[:-keep]
                self._held = self._held[-keep:]
            await self._more()
        if end:
            yield self._held[:end]
        self._held = self._held[end + len(self._mark) :]
        while (part := await self._part()) is not None:
            if part.get_param("name", header="content-disposition") == FIELD:
                raise BadForm(f"a form with several fields `{FIELD}`")
            await self._skip(self._mark)
        self._spend(len(self._held))
        async for chunk in self._chunks:
            self._spend(len(chunk))

    async def _part(self) -> Message | None:
        """The head of the part that begins here; None where the form ends."""
        while len(self._held) < 2:
            await self._more()
        if self._held.startswith(b"--"):
            return None
        return BytesHeaderParser().parsebytes((await self._skip(b"\r\n\r\n")).partition(b"\r\n")[2])

    async def _skip(self, mark: bytes) -> bytes:
        """What comes before the mark; the mark is used up with it."""
        while (end := self._held.find(mark)) < 0:
            if len(self._held) > self._left:
                raise BadForm("a form with too much besides the picture")
            await self._more()
        before = self._held[:end]
        self._spend(end + len(mark))
        self._held = self._held[end + len(mark) :]
        return before

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise BadForm("a form with too much besides the picture")

    async def _more(self) -> None:
        chunk = await anext(self._chunks, None)
        if chunk is None:
            raise BadForm("a form that ends too early")
        self._held += chunk
