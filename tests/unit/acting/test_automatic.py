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
from tests.support.installation import Yard

from fediwarden.acting import automatic
from fediwarden.acting.automatic import ACT_SECONDS, AGAIN, Acting, Automatic, Chosen, Suspected
from fediwarden.acting.blast_radius import Radii, Radius
from fediwarden.acting.copies import Copied
from fediwarden.acting.executor import Outcome
from fediwarden.errors import Busy
from fediwarden.ledger import Ledger
from fediwarden.model import Answer, AnswerReason, ObjectRef, Owed, Step, StoreName
from fediwarden.stores.memory import MemoryStore
from fediwarden.vault import make_identities

BAD = [b"bad %d" % number for number in range(4)]


@dataclass
class People:
    """Says of each object how many share it, and counts how often it is asked."""

    owners: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    problem: str = ""
    copies: dict[str, Copied] = field(default_factory=dict)

    def of(self, owed: Owed) -> Radius:
        self.asked.append(owed.ref.key)
        copies = tuple(copy for key, copy in self.copies.items() if key == owed.ref.key)
        return Radius(("one.png",), owners=self.owners.get(owed.ref.key, 1), problem=self.problem, copies=copies)


@dataclass
class Desk:
    """What stands around one `Automatic`."""

    yard: Yard
    people: People
    automatic: Automatic
    now: list[float]

    def act(self) -> list[str]:
        """Choose and hide; the keys that were hidden."""
        choice = self.automatic.choose()
        return [result.key for result in self.automatic.hide(self.yard.executor, choice) if result.outcome is Outcome.DONE]


def passed_as_debt(ledger: Ledger, data: bytes, store: StoreName) -> None:
    run = ledger.begin("gate", {}, START)
    answer = Answer(
        ObjectRef(store, "hash", len(data), "hash"), START, "pict-rs", True, AnswerReason.LATE, named(data), debt=True
    )
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

    chooses = Automatic(
        yard.ledger, radii, yard.clock, Event(), allowance=2, drill_allowance=1, meant=meant, ticks=lambda: now[0]
    )
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


def test_what_may_be_shared_stays_owed_while_not_everybody_could_be_asked(desk: Desk) -> None:
    desk.people.problem = "Lemmy gave no answer"
    with capture_logs() as logs:
        assert desk.act() == []
        desk.now[0] += AGAIN
        desk.people.problem = ""
        assert len(desk.act()) == 2

    assert {line["problem"] for line in logs if "not known for certain" in line["event"]} == {"Lemmy gave no answer"}


def a_copy_of(desk: Desk, key: str, **facts: bool) -> Copied:
    """A small picture beside it, which passes a scan."""
    desk.yard.store.put(f"small {key}", b"fine, and small: " + key.encode())
    desk.yard.scan()
    ref = desk.yard.store.stat(f"small {key}")
    sha256 = named(desk.yard.store.objects[ref.key])
    preview = facts.get("preview", True)
    return Copied(ref, sha256, "the preview of post 1 that Lemmy made", preview, facts.get("shared", False))


def test_the_preview_of_what_is_hidden_is_hidden_with_it_and_counts_for_the_allowance(desk: Desk) -> None:
    desk.people.owners = {"2": 2}
    desk.people.copies = {"0": a_copy_of(desk, "0")}

    assert sorted(desk.act()) == ["0", "1"]  # an allowance of two: the preview waits for its turn, and is owed

    assert "small 0" in desk.yard.owed
    desk.yard.clock.turn(days=1)
    assert [result.key for result in desk.yard.apply(allowance=9) if result.key.startswith("small")] == ["small 0"]
    assert "small 0" not in desk.yard.store.objects
    assert desk.yard.sealed(b"fine, and small: 0")


def test_a_preview_is_hidden_at_once_where_the_allowance_has_room(desk: Desk) -> None:
    desk.people.owners = {"1": 2, "2": 2}
    desk.people.copies = {"0": a_copy_of(desk, "0")}

    assert desk.act() == ["0", "small 0"]


@pytest.mark.parametrize("facts", [{"shared": True}, {"preview": False}])
def test_a_copy_that_others_show_or_that_somebody_uploaded_is_left_for_a_person(desk: Desk, facts: dict[str, bool]) -> None:
    desk.people.owners = {"1": 2, "2": 2}
    desk.people.copies = {"0": a_copy_of(desk, "0", **facts)}
    with capture_logs() as logs:
        hidden = desk.act()

    assert "small 0" not in hidden
    (review,) = desk.yard.ledger.entries(step=Step.REVIEW)
    assert review.ref.key == "small 0"
    assert [line["shows_the_same_as"] for line in logs if "left in reach" in line["event"]] == ["0"]


def test_who_shares_it_is_asked_again_after_a_while_and_not_before(desk: Desk) -> None:
    desk.people.owners = {"0": 2}
    desk.act()
    desk.yard.clock.turn(days=1)
    asked = len(desk.people.asked)
    for _ in range(5):
        assert desk.automatic.choose() == Chosen(frozenset(), owed=True, shared=1, over=0)
    assert len(desk.people.asked) == asked

    desk.people.owners = {}
    desk.now[0] += AGAIN
    assert desk.act() == ["0"]


def test_the_more_is_shared_the_more_seldom_each_is_asked_about(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automatic, "EACH", AGAIN)
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
    choice = desk.automatic.choose()
    changed, other = sorted(key for _, key, _ in choice.objects)
    desk.yard.store.put(changed, b"bad and new")
    desk.yard.scan()

    hidden = [result.key for result in desk.automatic.hide(desk.yard.executor, choice)]

    assert hidden == [other]
    assert desk.yard.store.objects[changed]


def test_nothing_is_asked_or_hidden_once_it_is_to_stop(desk: Desk) -> None:
    choice = desk.automatic.choose()
    desk.automatic._stop.set()
    assert list(desk.automatic.hide(desk.yard.executor, choice)) == []
    assert desk.automatic.choose().objects == frozenset()
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
