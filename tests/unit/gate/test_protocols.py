"""The gate over HTTP: two addresses, one neutral refusal, nothing for strangers; and requests that nobody would send."""

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.core.result import Ok
from tests.support.gates import SECRET, SECRETS, Yard, a_gate

from fediwarden.gate.protocols import NEUTRAL, application

GOOD, BAD = b"good", b"bad"
ADDRESSES = [f"/validate/{SECRET}", f"/api/v1/scan/{SECRET}"]


def sent(yard: Yard, method: str, path: str, content: bytes = b"", **headers: str | bytes) -> httpx2.Response:
    async def send() -> httpx2.Response:
        transport = httpx2.ASGITransport(app=application(yard.gate, SECRETS))
        async with httpx2.AsyncClient(transport=transport, base_url="http://gate") as client:
            return await client.request(method, path, content=content, headers=_latin({"Content-Type": "image/png", **headers}))

    return asyncio.run(send())


def _latin(headers: dict[str, str | bytes]) -> dict[bytes, bytes]:
    return {name.encode(): value if isinstance(value, bytes) else value.encode() for name, value in headers.items()}


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_upload_passes_with_200_and_is_refused_in_neutral_words(tmp_path: Path, address: str) -> None:
    with a_gate(tmp_path, late="refuse", large="refuse", max_upload_mb=1) as yard:
        assert sent(yard, "POST", address, GOOD).status_code == 200
        refused = [sent(yard, "POST", address, data) for data in (BAD, BAD, b"x" * 1_100_000)]

    assert {answer.status_code for answer in refused} == {406}
    assert len({answer.content for answer in refused}) == 1  # suspected, known or only too large: nobody can tell
    assert NEUTRAL in refused[0].text
    for answer in refused:
        assert set(answer.headers) <= {"content-length", "content-type", "connection"}


def test_the_pictrs_safety_address_speaks_as_pictrs_safety_does(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        assert sent(yard, "POST", ADDRESSES[1], GOOD).json() == {"message": "Image OK"}
        assert sent(yard, "POST", ADDRESSES[1], BAD).json() == {"message": NEUTRAL}
        assert [answer.face for answer in yard.answers(GOOD)] == ["pictrs-safety"]


STRANGERS = [
    ("GET", "/"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("GET", ADDRESSES[0]),
    ("PUT", ADDRESSES[0]),
    ("OPTIONS", ADDRESSES[0]),
    ("POST", "/validate/"),
    ("POST", "/validate/wrong"),
    ("POST", f"/validate/{SECRET}x"),
    ("POST", f"/validate/{SECRET}/"),
    ("POST", f"/VALIDATE/{SECRET}"),
    ("POST", "/api/v1/scan/IPADDR"),
    ("POST", "/api/v1/scan/..%2f..%2fetc"),
    ("GET", "/api/v1/pop"),
]


@pytest.mark.parametrize(("method", "path"), STRANGERS)
def test_strangers_meet_one_404(tmp_path: Path, method: str, path: str) -> None:
    with a_gate(tmp_path) as yard:
        answer = sent(yard, method, path, BAD, Origin="https://evil.example", **{"X-Forwarded-For": "127.0.0.1"})

        assert (answer.status_code, answer.json()) == (404, {"msg": "not found"})
        assert yard.core.opener.opened == []
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_health_tells_that_it_answers_and_nothing_else(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        assert sent(yard, "GET", "/healthz").json() == {"msg": "ok"}


def test_no_body_and_no_content_type_makes_it_fail(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:

        @given(st.binary(max_size=300), st.binary(max_size=60), st.sampled_from([SECRET, "wrong"]))
        @settings(max_examples=60, deadline=None)
        def one(data: bytes, claimed: bytes, secret: str) -> None:
            answer = sent(yard, "POST", f"/validate/{secret}", data, **{"Content-Type": claimed})

            assert answer.status_code in ((200, 406) if secret == SECRET else (404,))

        one()


def test_what_its_description_promises_holds_against_made_up_requests(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        app = application(yard.gate, SECRETS)
        schema = schemathesis.openapi.from_dict(app.openapi())
        schema.app = app
        operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
        assert {operation.path for operation in operations} == {"/validate/{secret}", "/api/v1/scan/{secret}", "/healthz"}
        for operation in operations:

            @given(case=operation.as_strategy())
            @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
            def one(case: "schemathesis.Case[Any]") -> None:
                assert case.call().status_code in (200, 404, 406)

            one()
