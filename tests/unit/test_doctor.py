"""doctor says of gate, pict-rs and Lemmy what is out of order, and what to do about it."""

import http.server
import itertools
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest
from tests.support.fake_lemmy import ADMIN, FakeLemmy, running_lemmy
from tests.support.fake_pictrs import KEY, RECORDED, FakePictrs, Refusal, Seen, running_pictrs
from tests.support.postgres import Postgres, run_sql

from fediwarden.app import App
from fediwarden.cli import doctor as examining
from fediwarden.cli.doctor import Diagnosis, examine
from fediwarden.errors import Refused
from fediwarden.platforms.lemmy.database import Database
from fediwarden.platforms.lemmy.model import Trace, Tracer
from fediwarden.platforms.lemmy.queries import grants

SECRET = "k3Vd-0qwQz_8mPLxTn4uYbGs71RcHe"

Doctor = Callable[..., dict[str, Diagnosis]]


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Examines a home with these settings (GATE__STORE="media"); the findings by what they are about."""
    for name in ("read.toml", "keep.toml"):
        (tmp_path / name).write_text(f'api_key = "{KEY}"\n')
        (tmp_path / name).chmod(0o600)
    monkeypatch.setattr(examining, "_addresses", list)

    def examined(tracer: object = None, **settings: object) -> dict[str, Diagnosis]:
        environment = {"FEDIWARDEN_HOME": str(tmp_path)}
        environment |= {f"FEDIWARDEN_{key}": json.dumps(value) for key, value in settings.items()}
        app = App(environment)
        if tracer is not None:
            monkeypatch.setattr(App, "tracer", lambda _: tracer)
        return {found.what: found for found in examine(app)}

    return examined


def media(fake: FakePictrs) -> dict[str, object]:
    return {
        "STORES__MEDIA__URL": f"pictrs://127.0.0.1:{fake.port}",
        "STORES__MEDIA__CREDENTIALS": "read.toml",
        "STORES__MEDIA__KEEPER_CREDENTIALS": "keep.toml",
    }


def test_nothing_is_said_of_what_is_not_there(doctor: Doctor) -> None:
    assert doctor(STORES__FILES__URL="/srv/files") == {}


@contextmanager
def resetting(port: int, *connections: int) -> Iterator[int]:
    """Something before a server that resets these connections (the first is 0) and passes on the others; its port."""

    class Between(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            number = next(numbers)
            if number in connections:
                self.request.recv(1)  # the rest is unread: closing resets
                return
            with socket.create_connection(("127.0.0.1", port)) as behind:
                there = threading.Thread(target=pump, args=(self.request, behind))
                there.start()
                pump(behind, self.request)
                there.join()

    def pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def shutdown_request(self, request: object) -> None:
            self.close_request(request)  # type: ignore[arg-type]

    numbers = itertools.count()
    with Server(("127.0.0.1", 0), Between) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield int(server.server_address[1])
        finally:
            server.shutdown()
            thread.join()


def test_a_connection_that_is_reset_once_is_no_alarm_and_twice_it_is(doctor: Doctor) -> None:
    with running_pictrs(FakePictrs(version="0.5.25")) as fake:
        with resetting(fake.port, 0, 2) as port:
            found = doctor(**media(fake) | {"STORES__MEDIA__URL": f"pictrs://127.0.0.1:{port}"})
        with resetting(fake.port, 0, 1) as port:
            twice = doctor(**media(fake) | {"STORES__MEDIA__URL": f"pictrs://127.0.0.1:{port}"})

    assert found["pict-rs media"].well
    assert found["pict-rs media, acting"].well
    assert not twice["pict-rs media"].well
    assert "gave no complete answer" in twice["pict-rs media"].words


@pytest.mark.parametrize("version", ["0.5", "0.4"])
def test_a_pict_rs_that_answers_and_accepts_its_key_is_well_and_a_wrong_key_is_told(
    doctor: Doctor, tmp_path: Path, version: str
) -> None:
    with running_pictrs(FakePictrs(version=version)) as fake:
        found = doctor(**media(fake))
        assert found["pict-rs media"].well
        assert found["pict-rs media"].words.startswith(version)
        assert found["pict-rs media, acting"].well
        assert ("pict-rs media, aliases" in found) == (version == "0.4")

        (tmp_path / "keep.toml").write_text('api_key = "not-the-right-one-at-all"\n')
        found = doctor(**media(fake), STORES__MEDIA__OVERLAP_SECONDS=5, STORES__FILES__URL="/srv/files")
    assert not found["pict-rs media, acting"].well
    assert "not-the-right" not in found["pict-rs media, acting"].words
    assert not found["pict-rs media, overlap"].well
    assert 'pictrs = "media"' in found["store files, link"].hint
    assert not any(one.vital for one in found.values())


def test_a_pict_rs_that_lists_its_objects_and_cannot_read_their_files_is_told(doctor: Doctor) -> None:
    with running_pictrs(FakePictrs(version="0.5.25")) as fake:
        for number in range(3):
            fake.put(b"%d" % number * 900, alias=f"{number}.png", created=datetime(2026, 1, 1 + number, tzinfo=UTC))
        well = doctor(**media(fake))["pict-rs media, files"]
        fake.lose("0.png")
        one = doctor(**media(fake))["pict-rs media, files"]
        fake.lose("2.png")
        none = doctor(**media(fake))["pict-rs media, files"]

    assert (well.well, well.words) == (True, "its files can be read")
    assert (one.well, "by itself" in one.hint) == (False, True)
    assert "cannot read the file of" in none.words
    assert "folder or bucket" in none.hint


def test_a_pict_rs_that_is_away_is_told_and_breaks_nothing(doctor: Doctor) -> None:
    found = doctor(STORES__MEDIA__URL="pictrs://127.0.0.1:9", STORES__MEDIA__CREDENTIALS="read.toml")
    assert not found["pict-rs media"].well
    assert not found["pict-rs media, acting"].well


def test_the_gates_secrets_deadline_and_store_are_held_to_what_fits(doctor: Doctor, tmp_path: Path) -> None:
    found = doctor(GATE__STORE="media")
    assert not found["gate's secrets"].well
    assert not found["gate's store"].well
    assert found["gate's reach"].well
    assert found["gate's deadline"].well

    file = tmp_path / "gate.secrets"
    file.write_text("changeme-changeme-changeme\n")
    file.chmod(0o600)
    found = doctor(GATE__DEADLINE_SECONDS=12, GATE__LISTEN="0.0.0.0:8970")
    assert "sample" in found["gate's secrets"].words
    assert "changeme" not in found["gate's secrets"].words
    assert not found["gate's deadline"].well
    assert "other machines can reach" in found["gate's reach"].words

    file.write_text(f"{SECRET}\n")
    found = doctor(GATE__LISTEN="unix:/run/gate.sock")
    assert found["gate's secrets"].well
    assert SECRET not in str(found)
    assert found["gate's reach"].well


@pytest.mark.parametrize(
    ("settings", "well", "words"),
    [
        ({}, True, "pict-rs is given 127.0.0.1:8970"),
        ({"GATE__LISTEN": "unix:/run/gate.sock"}, False, "TCP only"),
        ({"GATE__LISTEN": "unix:/run/gate.sock", "GATE__ADDRESS": "127.0.0.1:8990"}, True, "pict-rs is given 127.0.0.1:8990"),
        ({"GATE__LISTEN": "0.0.0.0:8970"}, False, "it listens everywhere"),
        ({"GATE__LISTEN": "0.0.0.0:8970", "GATE__ADDRESS": "10.212.97.2:8970"}, True, "pict-rs is given 10.212.97.2:8970"),
        ({"GATE__LISTEN": "localhost:8970"}, False, "localhost is a name: a pict-rs from 0.5.21 on finds no private address"),
        ({"GATE__ADDRESS": "gate:8970"}, False, "gate is a name"),
    ],
)
def test_the_address_that_pict_rs_would_be_given_is_in_numbers_or_the_doctor_says_so(
    doctor: Doctor, settings: dict[str, str], well: bool, words: str
) -> None:
    found = doctor(GATE__STORE="media", **settings)["gate's address"]

    assert found.well == well
    assert words in found.words


@pytest.mark.parametrize("version", RECORDED)
def test_each_version_is_told_by_what_it_can_do_and_its_good_key_is_not_called_wrong(doctor: Doctor, version: str) -> None:
    with running_pictrs(FakePictrs(version=version)) as fake:
        found = doctor(**media(fake))

    told = {"0.5.16": "0.5 up to 0.5.16", "0.5.25": "0.5.17 or newer", "0.6.0-rc.6": "0.6"}[version]
    assert found["pict-rs media"].words == f"{told}, answers and accepts the API key"
    assert found["pict-rs media, acting"].well
    assert "pict-rs media, inside" not in found
    assert "pict-rs media, limits" not in found  # it is not the gate's
    assert "JPEG XL" in found["pict-rs media, formats"].words


def test_the_limits_of_0_6_are_held_against_the_gate_without_its_secret(doctor: Doctor) -> None:
    gate = {"GATE__STORE": "media", "GATE__LISTEN": "127.0.0.1:8970"}
    with running_pictrs(FakePictrs(version="0.6.0-rc.6")) as fake:
        fake.validator = f"http://127.0.0.1:8970/validate/{SECRET}"
        well = doctor(**media(fake), **gate)["pict-rs media, limits"]
        fake.validator, fake.validator_timeout = f"http://10.0.0.9:8970/validate/{SECRET}", 6
        ill = doctor(**media(fake), **gate, GATE__MAX_UPLOAD_MB=10, SCAN__MAX_OBJECT_MB=20)["pict-rs media, limits"]
        fake.validator = ""
        nobody = doctor(**media(fake), **gate)["pict-rs media, limits"]

    assert well.well
    assert "`fediwarden drill gate` proves" in well.words  # an equal address is no proof
    assert ill.words.split("; ") == [
        "it asks 10.0.0.9:8970, and this gate would be at 127.0.0.1:8970",
        "it waits 6 s for an answer, and the gate may take 8",
        "it takes 40 MB, and the gate looks at 10 MB at most",
        "it takes 40 MB, and a scan fetches 20 MB at most",
    ]
    assert "asks nobody" in nobody.words
    assert SECRET not in f"{well}{ill}{nobody}"


@pytest.mark.parametrize(("version", "code"), [("0.5.25", "http-client-error"), ("0.6.0-rc.6", "unknown-error")])
def test_a_pict_rs_that_fetches_inner_addresses_for_anybody_is_told_and_the_setting_never_advised(
    doctor: Doctor, version: str, code: str
) -> None:
    def allowed(seen: Seen) -> None:  # as these two answered with the setting, on 2026-12-01
        if "proxy" in seen.query:
            raise Refusal(500, "Connection refused (os error 111)", code)

    with running_pictrs(FakePictrs(version=version, before=allowed)) as fake:
        found = doctor(**media(fake))["pict-rs media, inside"]

    assert not found.well
    assert "ALLOW_LOCAL_CONNECTIONS is set" in found.words
    assert "take that setting away" in found.hint


def test_formats_that_the_last_drill_saw_taken_and_not_opened_are_named_unless_the_gate_refuses_them(
    doctor: Doctor, tmp_path: Path
) -> None:
    with running_pictrs(FakePictrs(version="0.5.16")) as fake:
        doctor(**media(fake))
        with closing(App({"FEDIWARDEN_HOME": str(tmp_path)}).ledger) as ledger:
            found = {"opened": ["png"], "unopened": ["jxl"], "not taken": []}
            ledger.watching.remember("drill formats media", found, datetime(2026, 12, 1, tzinfo=UTC))
        open_to = doctor(**media(fake))["pict-rs media, formats"]
        closed = doctor(**media(fake), GATE__BROKEN="refuse")["pict-rs media, formats"]

    assert not open_to.well
    assert open_to.words == "cannot be opened here: jxl (drill of 2026-12-01)"
    assert 'broken = "refuse"' in open_to.hint
    assert closed.well


@contextmanager
def answering() -> Iterator[int]:
    """Something that answers /healthz as a gate does."""

    class Healthy(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Healthy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_a_gate_that_answers_at_another_address_of_this_machine_is_reachable_whatever_it_listens_on(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examining, "_addresses", lambda: ["127.0.0.1"])  # stands for an outside address
    with answering() as port:
        found = doctor(GATE__STORE="media", GATE__LISTEN=f"127.0.0.1:{port}")
    assert not found["gate's reach"].well
    assert "it answers at 127.0.0.1" in found["gate's reach"].words


class Lemmy(Database):
    """A database whose role is as these tests want it."""

    def __init__(self, *, readable: tuple[str, ...] = (), limits: tuple[str, ...] = (), refuses: bool = False) -> None:
        self.readable, self.limits, self.refuses = readable, limits, refuses

    def trace(self, aliases: object, urls: object, *, private_messages: bool) -> Trace:
        if self.refuses:
            raise Refused("permission denied for table local_image", hint="grant it")
        return Trace("0.19", "database", (), (), limits=self.limits)

    def secrets_readable(self) -> tuple[str, ...]:
        return self.readable

    def close(self) -> None: ...


def test_a_role_that_may_read_too_much_or_too_little_is_told(doctor: Doctor) -> None:
    lemmy = {"LEMMY__URL": "https://l.example"}
    found = doctor(cast(Tracer, Lemmy()), **lemmy)
    assert found["Lemmy"].well
    assert found["Lemmy's secrets"].well

    found = doctor(cast(Tracer, Lemmy(readable=("login_token.token",), limits=("no taglines",))), **lemmy)
    assert "no taglines" in found["Lemmy"].words
    assert not found["Lemmy"].well
    assert "login_token.token" in found["Lemmy's secrets"].words
    assert not found["Lemmy's secrets"].well

    found = doctor(cast(Tracer, Lemmy(refuses=True)), **lemmy)
    assert "permission denied" in found["Lemmy"].words


def test_the_rights_that_are_shipped_are_enough_for_a_lemmy_that_is_well(doctor: Doctor, postgres: Postgres) -> None:
    postgres.role("enough")
    url = postgres.database(Path("lemmy_019.sql"))
    run_sql(url, grants("0.19", "enough", private_messages=False))

    found = doctor(Database(postgres.url(url, "enough"), 10), LEMMY__URL="https://l.example")

    assert found["Lemmy"].well, found["Lemmy"].words
    assert found["Lemmy's secrets"].well


def by_token(doctor: Doctor, tmp_path: Path, lemmy: FakeLemmy, token: str) -> dict[str, Diagnosis]:
    """What is said of a Lemmy that is asked, and acted in, by this token."""
    (tmp_path / "lemmy.toml").write_text(f'jwt = "{token}"\n')
    (tmp_path / "lemmy.toml").chmod(0o600)
    return doctor(LEMMY__URL=lemmy.url, LEMMY__CREDENTIALS="lemmy.toml", LEMMY__KEEPER_CREDENTIALS="lemmy.toml")


@pytest.mark.parametrize("version", ["0.19", "1.0"])
def test_a_lemmy_by_token_is_well_where_its_account_sees_everything(doctor: Doctor, tmp_path: Path, version: str) -> None:
    with running_lemmy(version) as lemmy:
        found = by_token(doctor, tmp_path, lemmy, lemmy.login("dave", stay=True))
        lemmy.settings[ADMIN] = {"show_nsfw": True}
        shows = by_token(doctor, tmp_path, lemmy, lemmy.login("dave", stay=True))

    assert found["Lemmy"].well
    assert f"{version}, by its API as dave" in found["Lemmy"].words
    assert not found["Lemmy's account"].well
    assert "NSFW posts (show_nsfw)" in found["Lemmy's account"].words
    assert shows["Lemmy's account"].well
    assert found["Lemmy's token"].well
    assert "no end" in found["Lemmy's token, acting"].words


def test_the_token_that_acts_is_told_of_where_lemmy_is_asked_by_its_database(doctor: Doctor, tmp_path: Path) -> None:
    with running_lemmy("0.19") as lemmy:
        (tmp_path / "acts.toml").write_text(f'jwt = "{lemmy.login("dave")}"\n')
        (tmp_path / "acts.toml").chmod(0o600)
        settings = {"LEMMY__URL": lemmy.url, "LEMMY__KEEPER_CREDENTIALS": "acts.toml"}
        good = doctor(cast(Tracer, Lemmy()), **settings)
        lemmy.tokens.clear()
        spoilt = doctor(cast(Tracer, Lemmy()), **settings)

    assert good["Lemmy"].well
    assert good["Lemmy's token, acting"].well
    assert not spoilt["Lemmy's token, acting"].well
    assert "does not know this token" in spoilt["Lemmy's token, acting"].words


def test_a_token_that_ends_within_two_days_is_told_with_the_day(doctor: Doctor, tmp_path: Path) -> None:
    now = int(datetime.now(UTC).timestamp())
    with running_lemmy("1.0") as lemmy:
        week = by_token(doctor, tmp_path, lemmy, lemmy.login("dave", now=now))
        soon = by_token(doctor, tmp_path, lemmy, lemmy.login("dave", now=now - 6 * 86_400))
        over = by_token(doctor, tmp_path, lemmy, lemmy.login("dave", now=now - 8 * 86_400))

    assert week["Lemmy's token"].well
    assert not soon["Lemmy's token"].well
    assert f"{datetime.fromtimestamp(now + 86_400, UTC):%Y-%m-%d %H:%M} UTC" in soon["Lemmy's token"].words
    assert "stay_logged_in" in soon["Lemmy's token"].hint
    assert "ended" in over["Lemmy's token, acting"].words


def test_a_lemmy_that_does_not_know_its_token_any_more_is_told_when_it_ended(doctor: Doctor, tmp_path: Path) -> None:
    with running_lemmy("1.0") as lemmy:
        token = lemmy.login("dave", now=1_790_000_000)
        lemmy.tokens.clear()
        found = by_token(doctor, tmp_path, lemmy, token)

    assert not found["Lemmy"].well
    assert "does not know this token, which says that it ends 2026-09-28" in found["Lemmy"].words
    assert token not in str(found)


def test_a_lemmy_without_credentials_is_told(doctor: Doctor) -> None:
    assert "no credentials" in doctor(LEMMY__URL="https://l.example")["Lemmy"].words
