"""The gate as a process, asked by a pict-rs: what passes, what is refused, what a crash and a restart leave behind."""

import os
import signal
import socket
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from tests.support.command import Home
from tests.support.fake_pictrs import FakePictrs, Upload, running_pictrs
from tests.support.gate_process import running_gate
from tests.support.media_makers import still
from tests.support.waiting import until

from fediwarden.model import AnswerReason, EngineVersion, Sha256, StoreName
from fediwarden.platforms.pictrs.hashes import Hash


def picture(number: int) -> bytes:
    return still("png", 96, 80, number)


def bad(number: int) -> bytes:
    return still("gif", 64, 48, number)


def with_pictrs(home: Home, fake: FakePictrs) -> None:
    """The store that the gate guards."""
    file = home.folder / "pictrs.toml"
    file.write_text(f'api_key = "{fake.api_key}"\n')
    file.chmod(0o600)
    home.add_store("pictrs", url=f"pictrs://127.0.0.1:{fake.port}", credentials="pictrs.toml")
    home.settings["FEDIWARDEN_GATE__STORE"] = "pictrs"


def answers(home: Home) -> list[tuple[str, bool, str]]:
    with sqlite3.connect(home.folder / "ledger.sqlite3") as connection:
        return list(connection.execute("SELECT sha256, passed, why FROM answers ORDER BY id"))


def debts(home: Home) -> set[str]:
    with home.ledger() as ledger:
        return {debt.sha256 for debt in ledger.uploads.debts(EngineVersion(""))}


def name(data: bytes) -> Sha256:
    return Sha256(sha256(data).hexdigest())


def test_a_pict_rs_publishes_what_passes_and_nothing_else(home: Home) -> None:
    with running_pictrs() as fake:
        with_pictrs(home, fake)
        with running_gate(home) as gate:
            fake.validator = gate.url
            assert fake.upload(picture(1), "image/png").status == 201
            refused = fake.upload(bad(1), "image/gif")
            assert (refused.status, refused.code) == (400, "failed-external-validation")
            assert fake.upload(picture(1), "image/png").status == 201
            gate.process.send_signal(signal.SIGTERM)
            assert gate.process.wait(5) == 0

        assert [why for _, _, why in answers(home)] == ["looked", "looked", "known"]
        assert home.unsealed(bad(1))
        with home.ledger() as ledger:
            assert list(ledger.owed()) == []
            assert ledger.entry(StoreName("pictrs"), Hash.of(picture(1), 7).hex) is not None
        tally = home.run("scan", "pictrs", "--json").last
        assert (tally["listed"], tally["skipped"]) == (1, 1)  # what the gate looked at needs no second look
    events = home.folder.joinpath("fediwarden.log").read_text()
    assert "upload answered" in events
    assert gate.url.rsplit("/", 1)[1] not in events


def test_a_restart_loses_no_request_and_a_wrong_secret_meets_nothing(home: Home) -> None:
    fake = FakePictrs()
    with running_gate(home) as gate:
        fake.validator = gate.url
        with ThreadPoolExecutor(4) as pool:
            uploads = [pool.submit(_after, fake, number * 0.05, picture(number)) for number in range(60)]
            time.sleep(0.6)
            gate.process.send_signal(signal.SIGHUP)
            assert {upload.result().status for upload in uploads} == {201}
        (home.folder / "gate.secrets").chmod(0o644)
        gate.process.send_signal(signal.SIGHUP)  # it could not begin anew like this, so it stays as it is
        assert fake.upload(picture(98), "image/png").status == 201
        time.sleep(1.5)
        assert fake.upload(picture(97), "image/png").status == 201
        fake.validator = gate.url[:-3]
        assert fake.upload(picture(99), "image/png").code == "failed-external-validation"
    assert len(answers(home)) == 62


def _after(fake: FakePictrs, seconds: float, data: bytes) -> Upload:
    time.sleep(seconds % 0.4)
    return fake.upload(data, "image/png")


def test_after_kill_9_under_load_nothing_passed_without_a_record_and_debts_are_paid(home: Home) -> None:
    with running_pictrs() as fake:
        with_pictrs(home, fake)
        sent = [picture(number) for number in range(40)] + [bad(number) for number in range(20)]
        with running_gate(home, deadline_seconds=1.5, workers=1) as gate:
            fake.validator = gate.url
            with ThreadPoolExecutor(60) as pool:
                uploads = [pool.submit(_sent, fake, data) for data in sent]
                time.sleep(1.6)
                os.kill(gate.process.pid, signal.SIGKILL)
                outcomes = [upload.result() for upload in uploads]
        passed = {name(data) for data, outcome in zip(sent, outcomes, strict=True) if outcome.status == 201}
        assert all(outcome.status in (201, 400, 500) for outcome in outcomes)
        recorded = {sha for sha, may, _ in answers(home) if may}
        assert passed <= recorded
        assert debts(home) <= recorded

        with running_gate(home, deadline_seconds=8) as gate:
            fake.validator = gate.url
            until(lambda: not debts(home) & passed, 60)
        kept = {name(data) for data in fake.objects.values()}
        assert passed <= kept
        with home.ledger() as ledger:
            owed = {owed.sha256 for owed in ledger.owed()}
            assert ledger.verify() == []
        assert owed == passed & {name(data) for data in sent[40:]}


def _sent(fake: FakePictrs, data: bytes) -> Upload:
    return fake.upload(data, "image/gif" if data.startswith(b"GIF") else "image/png")


def test_a_killed_decoder_costs_one_answer_at_most_and_the_gate_goes_on(home: Home) -> None:
    fake = FakePictrs()
    with running_gate(home, failed="refuse") as gate:
        fake.validator = gate.url
        assert fake.upload(picture(1), "image/png").status == 201
        for child in _children(gate.process.pid):
            os.kill(child, signal.SIGKILL)
        outcomes = [fake.upload(picture(number), "image/png") for number in range(2, 8)]

        assert [outcome.status for outcome in outcomes[2:]] == [201] * 4
        whys = {why for sha, may, why in answers(home) if not may}
        assert whys <= {AnswerReason.FAILED.value}


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def test_a_ledger_that_somebody_else_keeps_locked_lets_nothing_pass_and_recovers(home: Home) -> None:
    fake = FakePictrs()
    with running_gate(home, deadline_seconds=1.5) as gate:
        fake.validator = gate.url
        other = sqlite3.connect(home.folder / "ledger.sqlite3", isolation_level=None, timeout=10)
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        assert fake.upload(picture(1), "image/png").code == "failed-external-validation"
        assert time.monotonic() - began < 2.0
        other.execute("ROLLBACK")
        other.close()
        until(lambda: fake.upload(picture(2), "image/png").status == 201)


def test_it_listens_on_a_unix_socket_and_takes_over_a_dead_one(home: Home) -> None:
    place = home.folder / "gate.sock"
    home.run("gate", "--new-secret")
    home.settings["FEDIWARDEN_GATE__LISTEN"] = f"unix:{place}"
    for _ in range(2):
        process = home.start("gate")
        until(lambda: place.exists() and _healthy(place))
        assert place.stat().st_mode & 0o777 == 0o660
        process.kill()
        process.communicate()
    assert place.exists()


def _healthy(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        try:
            client.connect(str(place))
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: gate\r\n\r\n")
            return client.recv(100).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


def test_what_keeps_it_from_starting_is_one_line_with_a_hint(home: Home) -> None:
    ran = home.run("gate", expect=4)
    assert "--new-secret" in ran.err
    home.run("gate", "--new-secret")
    home.settings["FEDIWARDEN_GATE__LISTEN"] = "nonsense"
    assert "no address" in home.run("gate", expect=4).err
    home.settings["FEDIWARDEN_GATE__LISTEN"] = "127.0.0.1:8970"
    home.settings["FEDIWARDEN_GATE__STORE"] = "nowhere"
    assert "nowhere" in home.run("gate", expect=4).err


def test_ctrl_c_ends_it_with_130(home: Home) -> None:
    with running_gate(home) as gate:
        gate.process.send_signal(signal.SIGINT)
        assert gate.process.wait(6) == 130
