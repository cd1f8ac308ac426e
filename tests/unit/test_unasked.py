"""Where nobody can be asked: only what is meant, only what one person has, within the allowance."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import pytest
from structlog.testing import capture_logs
from tests.support.core import START, Core
from tests.support.gates import named
from tests.support.yard import Yard

from fediwarden import unasked
from fediwarden.actions import Outcome
from fediwarden.errors import Busy
from fediwarden.ledger import Ledger
from fediwarden.model import Answer, ObjectRef, Owed, StoreName, Why
from fediwarden.radius import Radii, Radius
from fediwarden.stores.memory import MemoryStore
from fediwarden.unasked import ACT_SECONDS, AGAIN, Acting, Choice, Suspected, Unasked
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
    """What stands around one `Unasked`."""

    yard: Yard
    people: People
    unasked: Unasked
    now: list[float]

    def act(self) -> list[str]:
        """Choose and hide; the keys that were hidden."""
        choice = self.unasked.choose()
        return [result.key for result in self.unasked.hide(self.yard.warden, choice) if result.outcome is Outcome.DONE]


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
    people, now = People(), [0.0]

    @contextmanager
    def radii() -> Iterator[Radii]:
        yield people  # type: ignore[misc]

    def meant(owed: Owed) -> bool:
        return yard.ledger.uploads.was_debt(owed.sha256)

    chooses = Unasked(yard.ledger, radii, yard.clock, Event(), allowance=2, drill_allowance=1, meant=meant, ticks=lambda: now[0])
    with capture_logs():
        yield Desk(yard, people, chooses, now)


def test_what_several_people_share_stays_owed_and_uses_up_no_allowance(desk: Desk) -> None:
    desk.people.owners = {"0": 2}
    with capture_logs() as logs:
        assert sorted(desk.act()) == ["1", "2"]
        desk.now[0] += AGAIN
        assert desk.act() == []

    assert sorted(desk.yard.owed) == ["0", "3"]  # 3 was never let through by the gate: that is `apply`'s
    assert set(desk.yard.store.objects) >= {"0", "3"}
    assert [line["key"] for line in logs if "share" in line["event"]] == ["0"]  # said once


def test_who_shares_it_is_asked_again_after_a_while_and_not_before(desk: Desk) -> None:
    desk.people.owners = {"0": 2}
    desk.act()
    desk.yard.clock.turn(days=1)
    asked = len(desk.people.asked)
    for _ in range(5):
        assert desk.unasked.choose() == Choice(frozenset(), owed=True, shared=1, over=0)
    assert len(desk.people.asked) == asked

    desk.people.owners = {}
    desk.now[0] += AGAIN
    assert desk.act() == ["0"]


def test_the_more_is_shared_the_more_seldom_each_is_asked_about(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unasked, "EACH", AGAIN)
    desk.people.owners = dict.fromkeys("012", 2)
    desk.act()
    asked = list(desk.people.asked)
    assert sorted(asked) == ["0", "1", "2"]
    desk.now[0] += AGAIN
    desk.act()
    assert desk.people.asked == [*asked, asked[0]]


def test_what_is_over_the_allowance_is_asked_about_when_its_turn_comes(desk: Desk) -> None:
    first, second, third = (key for key in desk.yard.owed if key != "3")
    assert desk.act() == [first, second]
    assert desk.act() == []
    assert desk.people.asked == [first, second]

    desk.yard.clock.turn(days=1)
    assert desk.act() == [third]


def test_bytes_that_came_after_the_choice_are_not_hidden(desk: Desk) -> None:
    choice = desk.unasked.choose()
    changed, other = sorted(key for _, key, _ in choice.objects)
    desk.yard.store.put(changed, b"bad and new")
    desk.yard.scan()

    hidden = [result.key for result in desk.unasked.hide(desk.yard.warden, choice)]

    assert hidden == [other]
    assert desk.yard.store.objects[changed]


def test_nothing_is_asked_or_hidden_once_it_is_to_stop(desk: Desk) -> None:
    choice = desk.unasked.choose()
    desk.unasked._stop.set()
    assert list(desk.unasked.hide(desk.yard.warden, choice)) == []
    assert desk.unasked.choose().objects == frozenset()
    assert len(desk.people.asked) == 2


def test_something_new_is_hidden_at_once_even_while_something_else_cannot_be() -> None:
    seconds, tries, suspected = 0.0, 0, 0

    def cannot() -> int:
        nonlocal tries
        tries += 1
        return 0

    acting = Acting(cannot, lambda: suspected, lambda: seconds, Event())
    for _ in range(720):
        acting.turn()
        seconds += 5
    assert 5 < tries < 15
    suspected, before = 1, tries
    acting.turn()
    assert tries == before + 1


def test_what_is_suspected_since_is_told_apart() -> None:
    core = Core()
    suspected = Suspected(core.ledger)
    assert suspected() == 0
    core.store.put("a", b"bad")
    core.scan()
    assert (suspected(), suspected()) == (1, 1)


def test_somebody_else_who_acts_is_waited_for() -> None:
    seconds, tries = 0.0, 0

    def busy() -> int:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise Busy("another command is acting")
        return 1

    acting = Acting(busy, lambda: 0, lambda: seconds, Event())
    acting.turn()
    acting.turn()
    assert tries == 1
    seconds += ACT_SECONDS
    acting.turn()
    assert tries == 2
