"""What shares an object's bytes is asked beforehand, in numbers; whoever gives no answer is told of and stops nothing."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import pytest
from tests.support.ledgers import NOW, STORE, a_decision, a_hash, a_look, a_ref

from fediwarden.acting.blast_radius import Radii, Radius
from fediwarden.errors import FediwardenError, Lost, Unreached
from fediwarden.ledger import Ledger
from fediwarden.model import Name, NameKind, ObjectRef, Owed, Sha256
from fediwarden.platforms.lemmy.model import Copy, Person, Trace, Tracer, Upload, Use, UseKind
from fediwarden.platforms.pictrs.server import Server
from fediwarden.platforms.pictrs.words import Item

URL = "https://far.example/x.png"


@pytest.mark.parametrize(
    ("radius", "shared"),
    [
        (Radius(), False),
        (Radius(("a",)), False),
        (Radius(("a", "b")), True),
        (Radius(("a", "b"), owners=1), False),
        (Radius(("a",), owners=2), True),
        (Radius(("a",), owners=0), False),
    ],
)
def test_a_radius_is_shared_by_people_where_they_are_known_and_else_by_uploads(radius: Radius, shared: bool) -> None:
    assert radius.shared is shared


def test_a_radius_in_words_says_what_there_is_and_why_it_could_not_be_asked() -> None:
    radius = Radius(("a", "b"), (URL,), {"posts": 2, "comments": 0}, 1)
    assert radius.words == f"2 aliases, 2 posts, 1 account, cached from {URL}"
    assert replace(radius, uses={}, owners=None, proxied=(), problem="no answer").words.endswith("certain: no answer")
    assert Radius().words == ""


@dataclass
class Pictrs:
    """A pict-rs as far as a radius asks it."""

    item: Item | None = None
    asked: list[str] = field(default_factory=list)

    def aliases(self, alias: str) -> tuple[str, ...]:
        self.asked.append(alias)
        return self.item.aliases if self.item and alias in self.item.aliases else ()

    def find(self, sha256: Sha256, size: int, content_type: str = "") -> Item | None:
        self.asked.append(sha256)
        return self.item


@dataclass
class Lemmy:
    """A Lemmy in which two people use what they are asked about."""

    asked: list[tuple[Sequence[str], Sequence[str], bool]] = field(default_factory=list)
    silent: bool = False

    def trace(self, aliases: Sequence[str], urls: Sequence[str], *, private_messages: bool) -> Trace:
        if self.silent:
            raise Unreached("no answer")
        self.asked.append((aliases, urls, private_messages))
        people = tuple(Person(number, f"u{number}", f"https://l.example/u/u{number}", True) for number in (1, 2, 3))
        uses = (Use(UseKind.POST, 7, "url", by=2), Use(UseKind.POST, 7, "body", by=2), Use(UseKind.COMMENT, 8, "body", by=2))
        return Trace("0.19", "database", tuple(aliases), tuple(urls), (Upload("a.png", NOW, 1),), uses, people)


@pytest.fixture
def owed() -> tuple[Ledger, Owed]:
    ledger = Ledger.open(":memory:")
    run = ledger.begin("scan", {}, NOW)
    ledger.record(run, [(a_look(), a_decision())])
    names = (Name(NameKind.ALIAS, "old.png"), Name(NameKind.PROXIED, URL))
    ledger.platforms.add_names(run, [ObjectRef(STORE, "a.jpg", 1, "", names=names)])
    return ledger, next(ledger.owed())


def radii(ledger: Ledger, pictrs: Pictrs | None, lemmy: Lemmy | None, problem: str = "") -> Radii:
    def server(_: object) -> Server | None:
        return cast(Server | None, pictrs)

    return Radii(ledger, server, cast(Tracer | None, lemmy), private_messages=False, problem=problem)


def test_pict_rs_is_asked_for_the_aliases_of_now_and_lemmy_for_everybody_behind_them(owed: tuple[Ledger, Owed]) -> None:
    pictrs, lemmy = Pictrs(Item("k", ("a.png", "b.png", "old.png"))), Lemmy()
    found = radii(owed[0], pictrs, lemmy).of(owed[1])
    assert (found.aliases, found.proxied, found.owners, found.problem) == (("a.png", "b.png", "old.png"), (URL,), 2, "")
    assert (found.uses["posts"], found.uses["comments"]) == (1, 1)
    assert lemmy.asked == [(("a.png", "b.png", "old.png"), (URL,), False)]
    assert found.shared


SMALL = Item("ab" * 32 + "0" * 10 + "1400", ("small.webp",))  # as 0.5 names it: SHA-256, 20 bytes, a format


@dataclass
class Posted(Lemmy):
    """A Lemmy that made a preview of what one person posted; the preview is `shown_by`."""

    shown_by: tuple[int, ...] = (2,)
    complete: bool = True
    copies: tuple[Copy, ...] = (Copy("https://l.example/pictrs/image/small.webp", "small.webp", 7, preview=True),)

    def trace(self, aliases: Sequence[str], urls: Sequence[str], *, private_messages: bool) -> Trace:
        small = "small.webp" in aliases
        people = tuple(Person(number, f"u{number}", "", True) for number in (1, 2, 3))
        uses = tuple(Use(UseKind.POST, 7, "url", by=number) for number in (self.shown_by if small else (2,)))
        copies = () if small else self.copies
        return Trace("0.19", "database", tuple(aliases), (), (), uses, people, copies=copies, complete=self.complete)


@dataclass
class Both(Pictrs):
    """A pict-rs that has the picture and its preview."""

    problem: FediwardenError | None = None

    def find_alias(self, alias: str) -> Item | None:
        if self.problem is not None:
            raise self.problem
        return SMALL if alias == "small.webp" else None


def test_the_preview_that_lemmy_made_is_found_in_pict_rs_with_its_own_hash(owed: tuple[Ledger, Owed]) -> None:
    found = radii(owed[0], Both(Item("k", ("a.png",))), Posted()).of(owed[1])
    (copy,) = found.copies
    assert (copy.ref.store, copy.ref.key, copy.ref.size, copy.sha256) == (STORE, SMALL.key, 20, "ab" * 32)
    assert (copy.preview, copy.shared, found.perhaps_shared) == (True, False, False)
    assert "1 copy" in found.words


def test_a_preview_that_somebody_else_shows_as_well_is_shared(owed: tuple[Ledger, Owed]) -> None:
    (copy,) = radii(owed[0], Both(Item("k", ("a.png",))), Posted(shown_by=(2, 3))).of(owed[1]).copies
    assert copy.shared


def test_a_preview_that_somebody_uploaded_is_no_copy_to_be_hidden(owed: tuple[Ledger, Owed]) -> None:
    lemmy = Posted(copies=tuple(replace(copy, by_lemmy=False) for copy in Posted().copies))
    assert radii(owed[0], Both(Item("k", ("a.png",))), lemmy).of(owed[1]).copies == ()


@pytest.mark.parametrize(("problem", "unsure"), [(Unreached("it sleeps"), True), (Lost("no file"), False)])
def test_a_copy_that_cannot_be_asked_about_is_a_doubt_and_one_whose_file_is_lost_is_none(
    owed: tuple[Ledger, Owed], problem: FediwardenError, unsure: bool
) -> None:
    found = radii(owed[0], Both(Item("k", ("a.png",)), problem=problem), Posted()).of(owed[1])
    assert (found.copies, found.perhaps_shared) == ((), unsure)


def test_a_trace_in_part_is_no_proof_that_nobody_else_shares_it(owed: tuple[Ledger, Owed]) -> None:
    found = radii(owed[0], Both(Item("k", ("a.png",))), Posted(complete=False)).of(owed[1])
    assert (found.owners, found.shared, found.perhaps_shared) == (1, False, True)
    assert "fediwarden trace" in found.words


def test_an_alias_that_was_deleted_does_not_hide_the_others(owed: tuple[Ledger, Owed]) -> None:
    pictrs = Pictrs(Item("k", ("new.png", "newer.png")))
    found = radii(owed[0], pictrs, None).of(owed[1])
    assert found.aliases == ("new.png", "newer.png")
    assert pictrs.asked == ["old.png", a_hash("a.jpg")]
    assert found.shared


def test_whoever_gives_no_answer_is_told_of_and_what_is_known_stands(owed: tuple[Ledger, Owed]) -> None:
    class Silent(Pictrs):
        def aliases(self, alias: str) -> tuple[str, ...]:
            raise Unreached("pict-rs sleeps")

    found = radii(owed[0], Silent(), Lemmy(silent=True)).of(owed[1])
    assert (found.aliases, found.owners) == (("old.png",), None)
    assert found.problem == "pict-rs sleeps; no answer"
    assert not found.shared
    assert found.perhaps_shared
    assert radii(owed[0], None, None, problem="no credentials").of(owed[1]).problem == "no credentials"


def test_an_object_of_no_platform_has_nothing_around_it_and_nobody_is_asked() -> None:
    ledger = Ledger.open(":memory:")
    run = ledger.begin("scan", {}, NOW)
    ledger.record(run, [(a_look(a_ref("b.jpg")), a_decision())])
    lemmy = Lemmy()
    assert radii(ledger, None, lemmy, problem="unset").of(next(ledger.owed())) == Radius()
    assert lemmy.asked == []


def test_a_problem_that_every_name_has_is_said_once(owed: tuple[Ledger, Owed]) -> None:
    class Away(Pictrs):
        def aliases(self, alias: str) -> tuple[str, ...]:
            raise Unreached("http://pictrs: refused")

        def find(self, sha256: Sha256, size: int, content_type: str = "") -> Item | None:
            raise Unreached("http://pictrs: refused")

    ledger, object_owed = owed
    radii = Radii(ledger, lambda _: cast(Server, Away()), None, private_messages=False, problem="http://pictrs: refused")

    assert radii.of(object_owed).problem == "http://pictrs: refused"
