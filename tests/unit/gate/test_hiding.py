"""The gate hides what it let through and is suspected since, by itself: only that, only what one person has, within the allowance."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.support.core import START, Core
from tests.support.fake_pictrs import KEY, FakePictrs, running_pictrs
from tests.support.gates import named
from tests.support.yard import Yard

from fediwarden.actions import Warden
from fediwarden.app import App
from fediwarden.errors import Busy
from fediwarden.gate.hiding import AGAIN, Hiding
from fediwarden.ledger import Ledger
from fediwarden.model import Answer, EngineVersion, ObjectRef, Owed, StoreName, Why
from fediwarden.radius import Radii, Radius
from fediwarden.stores.memory import MemoryStore
from fediwarden.vault import make_identities

BAD = [b"bad %d" % number for number in range(4)]


@dataclass
class People:
    """Says of each object how many share it, and counts how often it is asked."""

    owners: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def of(self, owed: Owed) -> Radius:
        self.asked.append(owed.ref.key)
        return Radius(aliases=("one.png",), owners=self.owners.get(owed.ref.key, 1))


@dataclass
class Desk:
    """What stands around one `Hiding`."""

    yard: Yard
    people: People
    hiding: Hiding
    now: list[float]
    taken: list[int]  # a number each time that the lock of whoever acts was taken


def passed_as_debt(ledger: Ledger, data: bytes, store: StoreName) -> None:
    run = ledger.begin("gate", {}, START)
    answer = Answer(ObjectRef(store, "hash", len(data), "hash"), START, "pict-rs", True, Why.LATE, named(data), debt=True)
    ledger.record(run, [], [answer])


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    keys = make_identities(tmp_path / "keys", 2)
    objects = {f"{number}": data for number, data in enumerate(BAD)}
    yard = Yard(MemoryStore("memory", objects), Ledger.open(":memory:"), folder=tmp_path, keys=keys)
    for data in BAD[:3]:
        passed_as_debt(yard.ledger, data, yard.store.name)
    yard.scan()
    people, now, taken = People(), [0.0], list[int]()

    @contextmanager
    def warden() -> Iterator[Warden]:
        taken.append(1)
        yield yard.warden

    @contextmanager
    def radii() -> Iterator[Radii]:
        yield people  # type: ignore[misc]

    hiding = Hiding(yard.ledger, yard.store.name, warden, radii, allowance=2, drill_allowance=1, ticks=lambda: now[0])
    with capture_logs():
        yield Desk(yard, people, hiding, now, taken)


def test_what_several_people_share_stays_owed_and_uses_up_no_allowance(desk: Desk) -> None:
    desk.people.owners = {"0": 2}
    with capture_logs() as logs:
        desk.hiding()
        desk.now[0] += AGAIN
        desk.hiding()

    assert desk.yard.owed == ["0", "3"]  # 3 was never let through by the gate: that is `apply`'s
    assert set(desk.yard.store.objects) >= {"0", "3"}
    assert [line["key"] for line in logs if "share" in line["event"]] == ["0"]  # said once


def test_what_is_over_the_allowance_is_not_asked_about_every_two_seconds(desk: Desk) -> None:
    for _ in range(5):
        desk.hiding()
    assert len(desk.yard.owed) == 2
    assert (len(desk.people.asked), len(desk.taken)) == (3, 1)

    desk.yard.clock.turn(days=1)
    desk.now[0] += AGAIN
    desk.hiding()
    assert desk.yard.owed == ["3"]


def test_somebody_else_who_acts_is_waited_for(desk: Desk) -> None:
    taken = desk.hiding._warden

    def busy() -> AbstractContextManager[Warden]:
        raise Busy("another command is acting")

    desk.hiding._warden = busy
    with pytest.raises(Busy):
        desk.hiding()
    desk.hiding._warden = taken
    desk.hiding()
    assert len(desk.yard.owed) == 2


def test_an_answer_that_let_something_through_unscanned_says_so(desk: Desk) -> None:
    (answer,) = desk.yard.ledger.uploads.answers(named(BAD[0]))
    assert answer.debt


# --- as the program builds it


@pytest.fixture
def home(tmp_path: Path) -> Iterator[tuple[App, FakePictrs]]:
    with running_pictrs(FakePictrs(api_key=KEY)) as fake:
        folder = tmp_path / "home"
        folder.mkdir()
        for name in ("read.toml", "keep.toml"):
            (folder / name).write_text(f'api_key = "{KEY}"\n')
            (folder / name).chmod(0o600)
        publics = [identity.public for identity in make_identities(tmp_path / "keys", 2)]
        (folder / "recipients").write_text("\n".join(publics))
        app = App(
            {
                "FEDIWARDEN_HOME": str(folder),
                "FEDIWARDEN_PROFILE": "other",
                "FEDIWARDEN_VAULT__RECIPIENTS": "recipients",
                "FEDIWARDEN_GATE__STORE": "media",
                "FEDIWARDEN_GATE__ACT": "allowance",
                "FEDIWARDEN_STORES__MEDIA__URL": f"pictrs://127.0.0.1:{fake.port}",
                "FEDIWARDEN_STORES__MEDIA__CREDENTIALS": "read.toml",
                "FEDIWARDEN_STORES__MEDIA__KEEPER_CREDENTIALS": "keep.toml",
            }
        )
        yield app, fake
        app.ledger.close()


def test_a_debt_that_turns_out_suspected_is_purged_unless_somebody_else_uploaded_the_same(
    home: tuple[App, FakePictrs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fediwarden.gate.debts.EVERY", 0.05)
    monkeypatch.setattr("fediwarden.gate.hiding.AGAIN", 0.5)
    app, fake = home
    core = Core()
    monkeypatch.setattr(App, "policy", core.policy)
    media = StoreName("media")
    for data, aliases in ((b"bad of one", ("a.png",)), (b"bad of two", ("b.png", "c.png"))):
        for alias in aliases:
            fake.put(data, "image/png", alias=alias)
        run = app.ledger.begin("gate", {}, app.clock())
        row = fake.row(aliases[0])
        assert row is not None
        ref = ObjectRef(media, row.hash.hex(), len(data), row.hash.hex())
        app.ledger.record(run, [], [Answer(ref, app.clock(), "pict-rs", True, Why.LATE, named(data), "image/png", debt=True)])
    run = app.ledger.begin("gate", {}, app.clock())
    with capture_logs() as logs, app.gate(run, core.looker):
        _until(lambda: fake.row("a.png") is None)
        _until(lambda: [owed.sha256 for owed in app.ledger.owed()] == [named(b"bad of two")])
        _until(lambda: any("share" in line["event"] for line in logs))
    assert fake.data("b.png") == fake.data("c.png") == b"bad of two"
    assert list(app.ledger.uploads.debts(EngineVersion("1"))) == []


def _until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)
