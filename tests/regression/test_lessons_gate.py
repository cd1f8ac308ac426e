"""Rows P of the lessons: what an earlier upload gate did wrong, asked of ours."""

import inspect
import time
from pathlib import Path
from threading import Timer

import pytest
from tests.support.core import Core
from tests.support.gates import SECRET, a_gate, named
from tests.support.media_makers import animation, colours
from tests.unit.gate.test_protocols import sent

from fediwarden.errors import Misconfigured
from fediwarden.gate import protocols, secrets
from fediwarden.ledger import GATE
from fediwarden.model import AnswerReason, Blob
from fediwarden.platforms.pictrs.hashes import Hash

VALIDATE, SCAN = f"/validate/{SECRET}", f"/api/v1/scan/{SECRET}"
PRIVATE = ["127.0.0.1", "10.0.0.1", "101.32.1.1", "172.16.0.1", "192.168.0.1", "::1", "10::1"]


@pytest.mark.parametrize(
    ("why", "settings"),
    [
        (AnswerReason.LATE, {"deadline_seconds": 1.2}),
        (AnswerReason.LARGE, {"max_upload_mb": 1}),
        (AnswerReason.BROKEN, {}),
        (AnswerReason.FAILED, {"failed": "debt"}),
    ],
)
def test_p1_whatever_passes_unscanned_is_on_record_as_a_debt(
    tmp_path: Path, why: AnswerReason, settings: dict[str, object]
) -> None:
    data = {AnswerReason.LARGE: bytes(1_100_000), AnswerReason.BROKEN: b"broken"}.get(why, b"good")
    core = Core()
    with a_gate(tmp_path, core=core, slow=why is AnswerReason.LATE, **settings) as yard:  # type: ignore[arg-type]
        if why is AnswerReason.FAILED:
            core.opener.before = _crash
        assert yard.asked(data) == [True]
        assert [(debt.sha256, debt.why) for debt in yard.debts] == [(named(data), why)]


def _crash(_: Blob) -> None:
    raise RuntimeError("a decoder that died")


def test_p2_fifty_uploads_at_once_starve_nobody_and_none_passes_unrecorded(tmp_path: Path) -> None:
    uploads = [(b"bad %d" if number % 2 else b"good %d") % number for number in range(50)]
    with a_gate(tmp_path, slow=True, queue=100) as yard:
        Timer(0.5, yard.hold.set).start()

        assert yard.asked(*uploads) == [not data.startswith(b"bad") for data in uploads]
        assert yard.debts == []


def test_p3_a_name_in_a_form_is_never_a_path(tmp_path: Path) -> None:
    form = b'--x\r\nContent-Disposition: form-data; name="file"; filename="../escaped/poc.png"\r\n\r\ngood\r\n--x--\r\n'
    with a_gate(tmp_path / "inside") as yard:
        before = sorted(tmp_path.rglob("*"))
        assert sent(yard, "POST", SCAN, form, **{"Content-Type": "multipart/form-data; boundary=x"}).status_code == 200
        sent(yard, "POST", f"/api/v1/scan/..%2f..%2fescaped{SECRET}", b"bad")
        assert sorted(tmp_path.rglob("*")) == before


def test_p4_a_verdict_is_bound_to_the_bytes_and_never_to_another_upload(tmp_path: Path) -> None:
    uploads = [b"good a", b"bad b", b"good c", b"bad d"] * 10
    with a_gate(tmp_path, slow=True, workers=4) as yard:
        Timer(0.3, yard.hold.set).start()

        assert yard.asked(*uploads) == [True, False, True, False] * 10
        for data in set(uploads):
            assert {answer.passed for answer in yard.answers(data)} == {data.startswith(b"good")}


@pytest.mark.parametrize("address", PRIVATE)
def test_p5_no_address_is_trusted(tmp_path: Path, address: str) -> None:
    with a_gate(tmp_path) as yard:
        for given in ("IPADDR", "ipaddr", address):
            answer = sent(yard, "POST", f"/api/v1/scan/{given}", b"good", **{"X-Forwarded-For": address, "X-Real-IP": address})
            assert answer.status_code == 404
        assert yard.core.opener.opened == []


def test_p6_a_secret_is_needed_and_the_default_place_is_this_machine(tmp_path: Path) -> None:
    from fediwarden.config import GateSettings

    assert GateSettings().listen.startswith("127.0.0.1:")
    with pytest.raises(Misconfigured, match="no secret"):
        secrets.read(tmp_path / "none")
    with a_gate(tmp_path) as yard:
        assert sent(yard, "POST", "/validate/", b"good", Forwarded="for=127.0.0.1").status_code == 404


@pytest.mark.parametrize("claimed", ["video/mp4", "image/jxl", "", "text/plain", "nonsense", "image/png; charset=\xff"])
def test_p7_any_bytes_under_any_type_get_an_answer_and_no_error(tmp_path: Path, claimed: str) -> None:
    with a_gate(tmp_path) as yard:
        for data in (b"", b"good", b"broken", b"blind", bytes(range(256))):
            answer = sent(yard, "POST", VALIDATE, data, **{"Content-Type": claimed.encode("latin-1")})
            assert answer.status_code in (200, 406)


def test_p8_the_bytes_are_looked_at_as_they_came(tmp_path: Path) -> None:
    picture = animation("gif", colours(4))
    seen: list[bytes] = []
    core = Core()
    with a_gate(tmp_path, core=core) as yard:
        core.opener.before = lambda blob: seen.append(blob.data)
        yard.asked(picture, claimed="image/gif")
    assert seen == [picture]


def test_p10_one_deadline_and_nothing_goes_on_for_a_client_that_left(tmp_path: Path) -> None:
    import asyncio

    async def leave_early() -> None:
        tasks = [asyncio.create_task(yard.ask(b"good %d" % number)) for number in range(5)]
        await asyncio.sleep(0.2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with a_gate(tmp_path, slow=True, workers=1, deadline_seconds=1.5) as yard:
        began = time.monotonic()
        assert yard.asked(b"another") == [True]
        assert time.monotonic() - began < 1.5
        asyncio.run(leave_early())
        assert yard.gate.desk.waiting == 1  # what the thread had in its hands; the others are gone with their clients
        assert {debt.sha256 for debt in yard.debts} == {named(b"another")}


def test_p11_secrets_are_compared_in_constant_time_and_samples_refused(tmp_path: Path) -> None:
    source = inspect.getsource(secrets.Secrets.fit)
    assert "compare_digest" in source
    assert "return True" not in source  # every secret is compared, whichever fits
    for sample in ("CHANGEME-CHANGEME-CHANGEME", "0000000000000000000000000000", "apikey"):
        file = tmp_path / "gate.secrets"
        file.write_text(sample)
        file.chmod(0o600)
        with pytest.raises(Misconfigured):
            secrets.read(file)


def test_p12_every_refusal_stays_on_record(tmp_path: Path) -> None:
    with a_gate(tmp_path, broken="refuse") as yard:
        yard.asked(b"bad", b"broken")
        yard.asked(b"bad")

        assert [(answer.passed, answer.why) for answer in yard.answers(b"bad")] == [
            (False, AnswerReason.LOOKED),
            (False, AnswerReason.KNOWN),
        ]
        assert [(answer.passed, answer.why) for answer in yard.answers(b"broken")] == [(False, AnswerReason.BROKEN)]
        history = yard.core.ledger.history(GATE, Hash.of(b"bad", 7).hex)
        assert [made.decision.rule for made in history.decisions] == ["bright"]
        with yard.core.ledger._reading() as connection, pytest.raises(Exception, match="nothing in it is changed"):
            connection.exec_driver_sql("DELETE FROM answers")


def test_p15_no_answer_is_read_out_of_a_body(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        for body in (b'{"is_csam": "false"}', b'{"is_csam": null}', b"is_csam=false bad"):
            answer = sent(yard, "POST", VALIDATE, body, **{"Content-Type": "application/json"})
            assert (answer.status_code == 200) == (b"bad" not in body)


def test_p16_no_address_makes_an_error(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        for path in ("/", "/index.html", "//", "/%00", "/validate", "/api", "/api/v1/", "/favicon.ico", "/" + "x" * 5000):
            assert sent(yard, "GET", path).status_code == 404


def test_p17_no_other_site_may_ask(tmp_path: Path) -> None:
    with a_gate(tmp_path) as yard:
        for method in ("OPTIONS", "POST", "GET"):
            answer = sent(
                yard, method, VALIDATE, b"good", Origin="https://evil.example", **{"Access-Control-Request-Method": "POST"}
            )
            assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert "CORS" not in inspect.getsource(protocols)
