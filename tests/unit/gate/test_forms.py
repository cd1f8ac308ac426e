"""What carries a picture to the gate: the bytes as they are or a form with one part, read byte for byte; anything else is refused on record."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.gates import SECRETS, Yard, a_gate, in_chunks, named
from tests.unit.gate.test_protocols import ADDRESSES

from fediwarden.gate.forms import HEAD, MIME, Header, Misread, Sent, head_of
from fediwarden.gate.protocols import NEUTRAL, _judged, application
from fediwarden.model import AnswerReason

TYPE = "multipart/form-data; boundary=frontier"
FORM: list[Header] = [(b"content-type", TYPE.encode())]
FILE = b'Content-Disposition: form-data; name="file"; filename="../escaped/poc.png"'
REAL = "3323aadccb1d5082-115af6976b29cc13-180fe3b354fae2b5-9877fc1362a1e427"
SHAPES = json.loads((Path(__file__).parents[2] / "recordings" / "validations.json").read_text())


def part(data: bytes, *head: bytes, boundary: bytes = b"frontier") -> bytes:
    return b"--" + boundary + b"\r\n" + b"".join(line + b"\r\n" for line in head) + b"\r\n" + data + b"\r\n"


def form(data: bytes, *head: bytes) -> bytes:
    return part(data, *(head or (FILE, b"Content-Type: image/gif"))) + b"--frontier--\r\n"


def as_pictrs_06(data: bytes, kind: str = "image/jpeg", boundary: str = REAL) -> tuple[bytes, list[Header]]:
    """A validation of pict-rs 0.6: two Content-Type lines, and one part named with the storage key."""
    key = quote(f"01/a2/30/d5/49/29/73/5d/87/7f/ed6734f70c22.{kind.partition('/')[2]}", safe="")
    body = part(data, f"Content-Disposition: form-data; name*=utf-8''{key}".encode(), boundary=boundary.encode())
    types = [kind, f"multipart/form-data; boundary={boundary}"]
    return body + f"--{boundary}--\r\n".encode(), [(b"content-type", one.encode()) for one in types]


def read(body: bytes, headers: Sequence[Header] = FORM, size: int = 7) -> tuple[str, bytes]:
    async def whole() -> tuple[str, bytes]:
        sent = Sent(headers, in_chunks(body, size))
        claimed = await sent.open()
        return claimed, b"".join([chunk async for chunk in sent.data()])

    return asyncio.run(whole())


async def send(yard: Yard, path: str, body: bytes, headers: Sequence[Header], *, chunked: bool = False) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=application(yard.gate, SECRETS))
    async with httpx2.AsyncClient(transport=transport, base_url="http://gate") as client:
        return await client.post(path, content=in_chunks(body, 11) if chunked else body, headers=list(headers))


def sent(yard: Yard, path: str, body: bytes, headers: Sequence[Header], *, chunked: bool = False) -> httpx2.Response:
    return asyncio.run(send(yard, path, body, headers, chunked=chunked))


@given(
    data=st.binary(min_size=1, max_size=300) | st.sampled_from([b"x\r\n--frontie", b"\r\n--frontieR", b"x\r\n-", b"x\r\n\r\n--"]),
    size=st.integers(1, 400),
)
@settings(max_examples=40, deadline=None)
def test_the_picture_comes_out_byte_for_byte_however_it_is_cut(data: bytes, size: int) -> None:
    if b"--frontier" in data or not (begins := data.lstrip(b"\r\n\t ")) or begins.lower().startswith(MIME):
        return
    for body, headers in ((form(data), FORM), as_pictrs_06(data, "image/gif"), (data, [(b"content-type", b"image/gif")])):
        assert read(body, headers, size) == ("image/gif", data)


@pytest.mark.parametrize("recorded", SHAPES["validations"], ids=lambda one: f"{one['server']} {one['picture']}")
@pytest.mark.parametrize("turned", [False, True], ids=["as recorded", "the other way round"])
def test_what_each_pict_rs_really_sends_is_read(recorded: dict[str, object], turned: bool) -> None:
    lines = [tuple(line.split(": ", 1)) for line in recorded["head"]][:: -1 if turned else 1]  # type: ignore[attr-defined]
    headers = [(name.encode(), value.encode()) for name, value in lines]
    before, after = (str(recorded[side]).encode() for side in ("before", "after"))

    assert read(before + b"the picture" + after, headers) == (recorded["picture"], b"the picture")


ANY_NAME = [
    b'Content-Disposition: form-data; name="file"',
    b'Content-Disposition: form-data; name="images[]"; filename="a \\"b\\"; c.png"',
    b"content-disposition:form-data;name=x",
    b"Content-Disposition: form-data; name*=utf-8''01%2Fa2.jpeg",
    b"Content-Disposition: Form-Data; name=\"f\"; filename*=UTF-8''%c3%a9.png",
    'Content-Disposition: form-data; name="é,;="'.encode(),
]


@pytest.mark.parametrize("line", ANY_NAME)
def test_the_part_may_have_any_name(line: bytes) -> None:
    assert read(form(b"good", line)) == ("", b"good")
    assert read(form(b"good", b"Content-Length: 4", line, b"Content-Transfer-Encoding: binary")) == ("", b"good")


@pytest.mark.parametrize(
    "lines",
    [
        [b"image/jpeg", TYPE.encode()],
        [TYPE.encode(), b"image/jpeg"],
        [b"image/jpeg, " + TYPE.encode()],
        [TYPE.encode() + b",image/jpeg", b"image/jpeg"],
        [b'image/jpeg; note="a, b"', b'MULTIPART/Form-Data ;charset="utf-8"; BOUNDARY="frontier"'],
    ],
)
def test_content_types_may_come_in_any_order_and_joined_by_a_proxy(lines: list[bytes]) -> None:
    claimed, data = read(form(b"good", FILE), [(b"Content-Type", line) for line in lines])
    assert (claimed.partition(";")[0], data) == ("image/jpeg", b"good")


LONG = "x" * 71
BAD_HEADS: list[list[Header]] = [
    [(b"content-type", b"multipart/form-data")],
    [(b"content-type", b"multipart/form-data; boundary=")],
    [(b"content-type", b'multipart/form-data; boundary="frontier "')],
    [(b"content-type", f"multipart/form-data; boundary={LONG}".encode())],
    [(b"content-type", b"multipart/form-data; boundary=a; boundary=frontier")],
    [(b"content-type", b"multipart/form-data; boundary*=utf-8''frontier")],
    [(b"content-type", b"multipart/form-data; boundary*0=fron; boundary*1=tier")],
    [(b"content-type", b"multipart/form-data; boundary=frontier; boundary*=utf-8''other")],
    [(b"content-type", b'multipart/form-data; boundary="frontier')],
    [(b"content-type", "multipart/form-data; boundary=frontiér".encode())],
    [(b"content-type", b"multipart/mixed; boundary=frontier")],
    [(b"content-type", b"multipart; boundary=frontier")],
    [(b"content-type", b"message/rfc822")],
    [*FORM, (b"content-type", b"multipart/form-data; boundary=other")],
    [*FORM, (b"content-type", b"text/html")],
    [*FORM, (b"content-type", b"image/png"), (b"content-type", b"image/jpeg")],
    [(b"content-type", b"image/png, image/jpeg")],
    [*FORM, (b"content-encoding", b"gzip")],
    [(b"content-type", b"image/png"), (b"Content-Encoding", b"br")],
    [(b"content-type", b"image/png"), (b"content-transfer-encoding", b"base64")],
    [(b"content-type", b"image/png"), (b"content-range", b"bytes 0-3/9")],
]


@pytest.mark.parametrize("headers", BAD_HEADS, ids=str)
def test_a_head_that_contradicts_itself_or_encodes_is_not_understood(headers: list[Header]) -> None:
    with pytest.raises(Misread):
        head_of(headers)


BAD_BODIES = {
    "another boundary": form(b"good").replace(b"frontier", b"other"),
    "no part": b"--frontier--\r\n",
    "an empty part": form(b""),
    "nothing": b"",
    "a part and no end": form(b"good")[:-16],
    "an end cut off": form(b"good")[:-3],
    "two parts": part(b"good", FILE) + form(b"bad"),
    "a field beside it": part(b"text", b'Content-Disposition: form-data; name="other"') + form(b"good"),
    "something before it": b"bad\r\n" + form(b"good"),
    "an empty line before it": b"\r\n" + form(b"good"),
    "something after it": form(b"good") + b"bad",
    "a second form after it": form(b"good") + form(b"bad"),
    "a boundary with blanks": form(b"good").replace(b"--frontier\r\n", b"--frontier  \r\n"),
    "lines that end as on Unix": form(b"good").replace(b"\r\n", b"\n"),
    "no head": b"--frontier\r\n\r\ngood\r\n--frontier--\r\n",
    "no name": form(b"good", b"Content-Disposition: form-data"),
    "an attachment": form(b"good", b'Content-Disposition: attachment; name="file"'),
    "two names": form(b"good", b"Content-Disposition: form-data; name=a; name=b"),
    "two dispositions": form(b"good", FILE, FILE),
    "the boundary in the picture": form(b"go\n--frontier\nod"),
    "the boundary in a line": form(b"go--frontierod"),
    "a folded line": form(b"good", b"Content-Disposition: form-data;", b" name=a"),
    "a bare line feed": form(b"good", FILE + b"\nContent-Transfer-Encoding: base64"),
    "base64": form(b"Z29vZA==", FILE, b"Content-Transfer-Encoding: base64"),
    "gzip": form(b"good", FILE, b"Content-Encoding: gzip"),
    "a form in the form": form(b"good", FILE, b"Content-Type: multipart/mixed; boundary=x"),
    "a form in the form, undeclared": form(b"--x\r\n\r\ngood\r\n--x--", FILE),
    "another type than the head's": form(b"good", FILE, b"Content-Type: image/png"),
    "text": form(b"good", FILE, b"Content-Type: text/plain"),
    "another length": form(b"good", FILE, b"Content-Length: 3"),
    "no length": form(b"good", FILE, b"Content-Length: four"),
    "a head without an end": b"--frontier\r\n" + b"X: y\r\n" * HEAD,
    "a head too long": form(b"good", FILE + b"x" * HEAD),
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES)
@pytest.mark.parametrize("size", [1, 65536])
def test_a_body_that_is_no_form_with_one_part_is_not_understood(body: bytes, size: int) -> None:
    with pytest.raises(Misread):
        read(body, [(b"content-type", b"image/gif"), *FORM], size)


@pytest.mark.parametrize("before", [b"", b"\r\n", b" \r\n\r\n"])
def test_a_form_that_is_called_a_picture_is_not_understood(before: bytes) -> None:
    for body in (form(b"good"), as_pictrs_06(b"good")[0], b"Content-Type: image/gif\r\n\r\ngood", b"MIME-Version: 1.0\r\n"):
        with pytest.raises(Misread):
            read(before + body, [(b"content-type", b"image/gif")])


BLANKS = (b"", b"\r\n", b" \t\n" * 1000)  # the last are more than a body may begin with


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_body_of_nothing_never_passes_and_owes_nothing_whatever_may_pass_unscanned(tmp_path: Path, address: str) -> None:
    """As it comes through an nginx with `proxy_pass_request_body off`; in a form it is the same."""
    bodies = [
        (body, headers, chunked)
        for blanks in BLANKS
        for body, headers in ((blanks, [(b"content-type", b"image/png")]), (blanks, []), as_pictrs_06(blanks))
        for chunked in (False, True)
    ]

    async def all_at_once(yard: Yard) -> list[int]:
        answers = await asyncio.gather(
            *(send(yard, address, body, headers, chunked=chunked) for body, headers, chunked in bodies)
        )
        return [answer.status_code for answer in answers]

    with a_gate(tmp_path, broken="debt") as yard:
        assert asyncio.run(all_at_once(yard)) == [406] * len(bodies)
        assert yard.totals.refused == {AnswerReason.MISREAD: len(bodies)}
        assert yard.debts == []
        assert yard.gate.desk.held == 0
        assert yard.core.opener.opened == []


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_understood_is_understood_the_same_by_another_parser(draw: st.DataObject) -> None:
    pieces = [
        b"--frontier",
        b"--frontier--",
        b"\r\n",
        b"\n",
        b"--",
        b" ",
        FILE,
        b"Content-Type: image/gif",
        b"good",
        b"bad",
        b":",
        b"\r",
    ]
    inside = b"".join(draw.draw(st.lists(st.sampled_from(pieces), max_size=8)))
    whole = form(b"go" + inside)
    cut = draw.draw(st.integers(0, len(whole)))
    body = draw.draw(
        st.sampled_from([whole, whole[:cut] + b"\r\n" + whole[cut:], whole[:cut] + whole[cut + 1 :], inside + whole])
    )
    try:
        _, data = read(body, FORM, draw.draw(st.integers(1, 60)))
    except Misread:
        return
    parsed: Message = message_from_bytes(f"Content-Type: {TYPE}\r\n\r\n".encode() + body)
    parts = parsed.get_payload()

    assert isinstance(parts, list)
    assert [one.get_payload(decode=True) for one in parts if isinstance(one, Message)] == [data]
    assert not parsed.preamble
    assert not (parsed.epilogue or "").strip("\r\n")


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("chunked", [False, True])
def test_the_picture_in_a_form_is_what_is_judged_remembered_and_sealed(tmp_path: Path, address: str, chunked: bool) -> None:
    with a_gate(tmp_path) as yard:
        before = sorted(tmp_path.rglob("*"))
        for number in range(2):  # the boundary is a new one each time
            assert (
                sent(yard, address, *as_pictrs_06(b"good", boundary=f"{number}-{REAL[2:]}"), chunked=chunked).status_code == 200
            )
        assert sorted(tmp_path.rglob("*")) == before
        assert sent(yard, address, *as_pictrs_06(b"bad"), chunked=chunked).status_code == 406
        assert sent(yard, address, b"good", [(b"content-type", b"image/jpeg")], chunked=chunked).status_code == 200

        assert [(answer.why, answer.claimed, answer.ref.size) for answer in yard.answers(b"good")] == [
            (AnswerReason.LOOKED, "image/jpeg", 4),
            (AnswerReason.KNOWN, "image/jpeg", 4),
            (AnswerReason.KNOWN, "image/jpeg", 4),
        ]
        assert [(answer.sealed, answer.why) for answer in yard.answers(b"bad")] == [(True, AnswerReason.LOOKED)]
        assert yard.vaults.evidence.check(named(b"bad"))
        assert yard.debts == []
        assert not [path for path in tmp_path.rglob("*") if "ed6734f70c22" in path.name]


@pytest.mark.parametrize("address", ADDRESSES)
def test_what_is_not_understood_is_refused_in_the_same_words_and_on_record(tmp_path: Path, address: str) -> None:
    bodies = [b"", form(b"good")[:-16], part(b"good", FILE) + form(b"bad"), form(b"good") + b"bad"]
    with a_gate(tmp_path, broken="debt") as yard:
        suspected = sent(yard, address, b"bad", [(b"content-type", b"image/png")])
        refused = [sent(yard, address, body, FORM) for body in bodies]
        refused.append(sent(yard, address, form(b"good"), [(b"content-type", b"image/png")]))
        refused.append(sent(yard, address, b"good", [(b"content-type", b"image/png"), (b"content-encoding", b"gzip")]))

        assert {(answer.status_code, answer.content, tuple(answer.headers)) for answer in refused} == {
            (406, suspected.content, tuple(suspected.headers))
        }
        assert NEUTRAL in suspected.text
        assert yard.totals.refused == {AnswerReason.MISREAD: 6, AnswerReason.LOOKED: 1}
        assert yard.gate.desk.held == 0
        assert len(yard.core.opener.opened) == 1
        assert yard.debts == []


def test_what_is_not_understood_waits_as_long_as_a_new_picture(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        yard.gate.desk._durations.extend([0.3] * 9)
        began = time.monotonic()
        assert sent(yard, ADDRESSES[0], b"", FORM).status_code == 406
        assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("begin", [b"--fron", part(b"go", FILE)[:-2]])
def test_a_form_that_trickles_is_given_up_at_the_deadline(tmp_path: Path, begin: bytes) -> None:
    async def trickle(yard: Yard) -> bool:
        async def chunks() -> AsyncIterator[bytes]:
            yield begin
            while True:
                yield b"x" if len(begin) > 6 else b""
                await asyncio.sleep(0.05)

        return await _judged(yard.gate, "pictrs-safety", FORM, chunks(), time.monotonic())

    with a_gate(tmp_path, deadline_seconds=1.2) as yard:
        began = time.monotonic()
        assert asyncio.run(trickle(yard)) is False
        assert time.monotonic() - began < 1.2
        assert yard.totals.refused == {AnswerReason.UNREAD: 1}
