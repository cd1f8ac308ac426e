"""A picture in a form, at the address of pictrs-safety: taken out of the stream byte for byte, within bounds, or refused on record."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.gates import Yard, a_gate, in_chunks
from tests.unit.gate.test_faces import ADDRESSES, sent

from fediwarden.gate.faces import NEUTRAL, _judged
from fediwarden.gate.forms import AROUND, BadForm, Form
from fediwarden.model import Why

TYPE = "multipart/form-data; boundary=frontier"
CD = b'Content-Disposition: form-data; name="%b"; filename="../escaped/poc.png"\r\n'


def part(name: bytes, data: bytes, kind: bytes = b"image/gif") -> bytes:
    return b"--frontier\r\n" + CD % name + (b"Content-Type: %b\r\n" % kind if kind else b"") + b"\r\n" + data + b"\r\n"


def form(data: bytes, kind: bytes = b"image/gif") -> bytes:
    return part(b"file", data, kind) + b"--frontier--\r\n"


def read(body: bytes, content_type: str = TYPE, size: int = 7) -> tuple[str, bytes]:
    async def whole() -> tuple[str, bytes]:
        one = Form(in_chunks(body, size), content_type)
        kind = await one.open()
        return kind, b"".join([chunk async for chunk in one.data()])

    return asyncio.run(whole())


@given(
    data=st.binary(max_size=300) | st.just(b"\r\n--frontie") | st.just(b"\r\n--frontier".replace(b"r", b"R")),
    size=st.integers(1, 400),
)
@settings(max_examples=60, deadline=None)
def test_the_picture_comes_out_byte_for_byte_however_it_is_cut(data: bytes, size: int) -> None:
    if b"--frontier" in data:
        return
    fields = part(b"other", b"x" * 50, b"") + part(b"file", data) + part(b"more", b"y", b"")
    assert read(b"preamble\r\n" + fields + b"--frontier--\r\nepilogue", size=size) == ("image/gif", data)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (form(b"good"), "multipart/form-data"),
        (form(b"good"), "multipart/form-data; boundary=" + "x" * 71),
        (form(b"good"), "multipart/form-data; boundary=other"),
        (form(b"good")[:-16], TYPE),
        (part(b"images[]", b"good") + b"--frontier--", TYPE),
        (part(b"file", b"good") + form(b"bad"), TYPE),
        (part(b"other", bytes(AROUND + 1)) + form(b"good"), TYPE),
        (form(b"good") + bytes(AROUND + 1), TYPE),
        (b"--frontier\r\n" + b"X: y\r\n" * AROUND, TYPE),
        (b"", TYPE),
    ],
)
def test_what_is_no_form_with_one_picture_is_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(BadForm):
        read(body, content_type, 65536)


def test_a_form_is_judged_by_what_it_holds_and_no_file_is_written(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        before = sorted(tmp_path.rglob("*"))
        assert sent(yard, "POST", ADDRESSES[1], form(b"good"), **{"Content-Type": TYPE}).json() == {"message": "Image OK"}
        assert sorted(tmp_path.rglob("*")) == before
        refused = sent(yard, "POST", ADDRESSES[1], form(b"bad"), **{"Content-Type": TYPE})
        assert (refused.status_code, refused.json()) == (406, {"message": NEUTRAL})

        (answer,) = yard.answers(b"good")
        assert (answer.face, answer.claimed, answer.passed) == ("pictrs-safety", "image/gif", True)
        assert [answer.sealed for answer in yard.answers(b"bad")] == [True]
        assert not [path for path in tmp_path.rglob("*") if "poc" in path.name]


def test_a_form_without_a_picture_is_refused_and_on_record(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        for body in (b"", form(b"good")[:-16]):
            answer = sent(yard, "POST", ADDRESSES[1], body, **{"Content-Type": TYPE})
            assert (answer.status_code, answer.json()) == (406, {"message": NEUTRAL})
        assert yard.totals.refused == {Why.UNREAD: 2}
        assert yard.gate.desk.held == 0


def test_pict_rs_sends_no_forms(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        assert sent(yard, "POST", ADDRESSES[0], form(b"good"), **{"Content-Type": TYPE}).status_code == 415


@pytest.mark.parametrize("begin", [b"--fron", part(b"file", b"go")[:-2]])
def test_a_form_that_trickles_is_given_up_at_the_deadline(tmp_path: Path, begin: bytes) -> None:
    async def trickle(yard: Yard) -> bool:
        async def chunks() -> AsyncIterator[bytes]:
            yield begin
            while True:
                yield b"x"
                await asyncio.sleep(0.05)

        return await _judged(yard.gate, "pictrs-safety", TYPE, chunks(), time.monotonic())

    with a_gate(tmp_path, deadline_seconds=1.2) as yard:
        began = time.monotonic()
        assert asyncio.run(trickle(yard)) is False
        assert time.monotonic() - began < 1.2
        assert yard.totals.refused == {Why.UNREAD: 1}
