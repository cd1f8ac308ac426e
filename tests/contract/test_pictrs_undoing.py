"""Hidden through pict-rs is said when nothing of it is to be had, and a restore that fails or dies halfway is undone or completed."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.support.fake_pictrs import FakePictrs, Refusal, Seen, running_pictrs
from tests.support.installation import Crash, Yard
from tests.support.pictrs_stores import keeper_of, reader_of, settings_of

from fediwarden.acting.blast_radius import Radii
from fediwarden.acting.executor import Custody, Outcome
from fediwarden.errors import Occupied, Unreached
from fediwarden.ledger import Ledger
from fediwarden.model import Act, DeedState, Name, ObjectRef, Place, Sha256, Step, StoreName
from fediwarden.stores.pictrs import PictrsKeeper, PictrsReader
from fediwarden.stores.url import StoreSettings
from fediwarden.vault import Identity, make_identities

BAD = b"bad, as far as the test goes"
ALIASES = ["a.png", "b.png", "c.png"]


def sha(data: bytes) -> Sha256:
    return Sha256(sha256(data).hexdigest())


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


@pytest.fixture(scope="session")
def identities(tmp_path_factory: pytest.TempPathFactory) -> list[Identity]:
    return make_identities(tmp_path_factory.mktemp("keys"))


@dataclass
class Guarded(Yard):
    """A yard whose store is a pict-rs, in which BAD lies under three aliases, met by a scan."""

    fake: FakePictrs = field(default_factory=FakePictrs)
    settings: StoreSettings = field(default_factory=lambda: StoreSettings(StoreName("pictrs"), "pictrs://127.0.0.1:1"))

    def __post_init__(self) -> None:
        self.reader: PictrsReader = reader_of(self.settings)
        self.keeper: PictrsKeeper = self.another()

    def another(self) -> PictrsKeeper:
        """A keeper as the next command opens it."""
        keeper = keeper_of(self.settings)
        keeper._known = self._known
        keeper._remember = self._remember
        keeper._purge_seconds = 0.3
        return keeper

    def _known(self, key: str) -> tuple[Name, ...]:
        return self.ledger.platforms.names_of(self.settings.name, key)

    def _remember(self, ref: ObjectRef) -> None:
        self.ledger.platforms.add_names(self.begun("apply"), [ref])

    def hold(self, name: StoreName) -> Custody:
        return Custody(self.keeper, removes=True, platform=True)

    @property
    def key(self) -> str:
        return f"{sha(BAD)}{len(BAD):012x}07"

    def look(self) -> None:
        self.scan(self.reader)

    def deeds(self) -> list[tuple[Act, DeedState]]:
        return [(event.act, event.state) for event in self.ledger.history(self.settings.name, self.key).deeds]

    @property
    def back(self) -> list[bytes | None]:
        """What lies under the aliases."""
        return [self.fake.data(alias) for alias in ALIASES]

    def close(self) -> None:
        self.reader.close()
        self.keeper.close()


@pytest.fixture
def guarded(tmp_path: Path, identities: list[Identity]) -> Generator[Guarded]:
    with running_pictrs() as fake:
        for alias in ALIASES:
            fake.put(BAD, "image/png", alias=alias)
        made = Guarded(
            ledger=Ledger.open(":memory:"), folder=tmp_path, keys=identities, fake=fake, settings=settings_of(fake, tmp_path)
        )
        with closing(made):
            made.look()
            yield made


@pytest.fixture
def hidden(guarded: Guarded) -> Guarded:
    """The same, with it hidden."""
    assert [result.outcome for result in guarded.apply()] == [Outcome.DONE]
    assert guarded.back == [None] * 3
    return guarded


def refusing(path: str, status: int, code: str, times: int = 1000) -> Callable[[Seen], None]:
    """Makes pict-rs answer so to this path, after as many that it answers as it does."""
    left = [times]

    def before(seen: Seen) -> None:
        if seen.path == path:
            left[0] -= 1
            if left[0] < 0 or times == 1000:
                raise Refusal(status, "as the test wants", code)

    return before


# -- hidden is said late enough --------------------------------------------------------------------------------------------


def test_an_alias_without_a_delete_token_keeps_it_owed_though_the_purge_said_ok(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = guarded.fake._clean_alias
    monkeypatch.setattr(guarded.fake, "_clean_alias", lambda alias: None if alias == "b.png" else clean(alias))

    (first,) = guarded.apply()

    assert (first.outcome, guarded.back) == (Outcome.FAILED, [None, BAD, None])
    assert "b.png" in first.problem
    assert "delete token" in first.hint
    assert guarded.owed == [guarded.key]
    monkeypatch.undo()
    assert [result.outcome for result in guarded.apply()] == [Outcome.DONE]


def test_a_file_that_its_public_address_still_serves_keeps_it_owed_though_no_alias_is_left(guarded: Guarded) -> None:
    guarded.fake.public = True
    kept = guarded.fake._drop_object
    guarded.fake._drop_object = lambda identifier: None  # type: ignore[method-assign]

    (first,) = guarded.apply()

    assert (first.outcome, guarded.fake.rows) == (Outcome.FAILED, {})
    assert "still served from 'http://127.0.0.1" in first.problem
    assert not first.unreached  # pict-rs did answer
    assert "cache" in first.hint
    guarded.keeper.close()
    guarded.keeper = guarded.another()
    (second,) = guarded.apply()  # the address is on record: pict-rs does not tell it any more
    assert "still served" in second.problem
    for identifier in list(guarded.fake.objects):
        kept(identifier)
    assert [result.outcome for result in guarded.apply()] == [Outcome.DONE]


def test_a_lost_file_confirms_no_hiding(guarded: Guarded) -> None:
    guarded.fake._clean_alias = lambda alias: None  # type: ignore[method-assign]

    def lose(seen: Seen) -> None:
        if seen.path == "/internal/purge":
            guarded.fake.objects.clear()
        elif seen.path.startswith("/image/original") and not guarded.fake.objects:
            raise Refusal(500, "No such file or directory (os error 2)", "not-found")

    guarded.fake.before = lose

    assert [result.outcome for result in guarded.apply()] == [Outcome.FAILED]
    assert guarded.owed == [guarded.key]


def test_a_listing_that_one_object_fails_keeps_nothing_from_being_hidden(guarded: Guarded) -> None:
    def poisoned(seen: Seen) -> None:
        if seen.path == "/internal/hashes" and seen.query.get("limit") != "0":
            raise Refusal(500, "No such file or directory (os error 2)", "not-found")

    guarded.fake.before = poisoned

    assert [result.outcome for result in guarded.apply()] == [Outcome.DONE]
    assert guarded.back == [None] * 3


def test_aliases_on_record_that_went_stop_neither_the_question_who_shares_nor_hiding(guarded: Guarded) -> None:
    fake = guarded.fake
    for alias in ALIASES:
        fake._drop_alias(alias)
    fake.put(BAD, "image/png", alias="anew.png")

    def as_0_6(seen: Seen) -> None:
        if seen.path == "/internal/aliases" and fake.row(seen.query["alias"]) is None:
            raise Refusal(404, "Failed to get related aliases", "not-found")

    fake.before = as_0_6
    (owed,) = guarded.ledger.owed()

    radius = Radii(guarded.ledger, lambda _: guarded.reader.server, None, private_messages=False).of(owed)

    assert (radius.aliases, radius.problem, radius.shared) == (("anew.png",), "", False)
    assert [result.outcome for result in guarded.apply()] == [Outcome.DONE]
    assert fake.rows == {}


# -- restoring, in every version ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "taken"),
    [(200, "", 400), (404, "alias-not-found", 400), (404, "not-found", 500)],
    ids=["0.5.16", "0.5.25", "0.6"],
)
def test_it_comes_back_byte_for_byte_under_every_alias_in_every_version(
    hidden: Guarded, status: int, code: str, taken: int
) -> None:
    fake = hidden.fake

    def answers(seen: Seen) -> None:
        if status == 404 and seen.path == "/internal/aliases" and fake.row(seen.query["alias"]) is None:
            raise Refusal(status, "Requested a file that doesn't exist", code)

    fake.before = answers

    assert hidden.restore(hidden.key, with_key=True).outcome is Outcome.DONE

    assert hidden.back == [BAD] * 3
    verdict = hidden.ledger.verdict(sha(BAD))
    assert verdict is not None
    assert verdict.step is Step.PASS
    hidden.look()
    assert hidden.owed == []


# -- a restore that fails -----------------------------------------------------------------------------------------------------


def test_what_a_failed_restore_imported_is_deleted_again_and_all_of_it_can_be_restored_later(hidden: Guarded) -> None:
    hidden.fake.before = refusing("/internal/import", 400, "failed-external-validation", times=2)

    result = hidden.restore(hidden.key, with_key=True)

    assert (result.outcome, hidden.back) == (Outcome.FAILED, [None] * 3)
    assert "nothing of it is back" in result.problem
    assert (hidden.ledger.verdict(sha(BAD)), hidden.owed) == (None, [])
    hidden.fake.before = lambda seen: None
    assert hidden.restore(hidden.key, with_key=True).outcome is Outcome.DONE
    assert hidden.back == [BAD] * 3


def test_what_a_failed_restore_imported_and_pict_rs_does_not_delete_is_owed_until_apply_does(hidden: Guarded) -> None:
    refuse = refusing("/internal/import", 400, "failed-external-validation", times=2)

    def before(seen: Seen) -> None:
        refuse(seen)
        if seen.path in ("/internal/delete", "/internal/purge"):
            raise Refusal(500, "as the test wants", "database-timeout")

    hidden.fake.before = before
    result = hidden.restore(hidden.key, with_key=True)
    assert (result.outcome, hidden.back.count(BAD)) == (Outcome.FAILED, 2)
    assert "it is owed" in result.problem
    assert hidden.owed == [hidden.key]
    hidden.fake.before = lambda seen: None

    assert [done.outcome for done in hidden.apply(0)] == [Outcome.DONE]

    assert hidden.back == [None] * 3
    hidden.restore(hidden.key, with_key=True)
    assert hidden.back == [BAD] * 3


def test_the_same_bytes_of_somebody_else_stay_when_a_failed_restore_is_undone(hidden: Guarded) -> None:
    theirs = b"as pict-rs writes it anew"
    hidden.fake.put(theirs, "image/png", alias="theirs.png")
    hidden.fake.alters = lambda _: theirs
    hidden.fake.before = refusing("/internal/import", 400, "failed-external-validation", times=2)

    assert hidden.restore(hidden.key, with_key=True).outcome is Outcome.FAILED

    assert hidden.back == [None] * 3
    assert hidden.fake.data("theirs.png") == theirs


def test_what_somebody_uploaded_while_a_restore_failed_stays_and_is_owed(hidden: Guarded) -> None:
    imports = [0]

    def before(seen: Seen) -> None:
        if seen.path == "/internal/import":
            imports[0] += 1
            if imports[0] == 2:
                hidden.fake.put(BAD, "image/png", alias="theirs.png")
                raise Refusal(400, "as the test wants", "failed-external-validation")

    hidden.fake.before = before

    result = hidden.restore(hidden.key, with_key=True)

    assert "others have the same bytes" in result.problem
    assert (hidden.back, hidden.fake.data("theirs.png")) == ([None] * 3, BAD)
    assert hidden.owed == [hidden.key]


def test_an_alias_that_is_taken_is_found_before_anything_is_imported(hidden: Guarded) -> None:
    hidden.fake.put(b"somebody else's", "image/png", alias="c.png")

    result = hidden.restore(hidden.key, with_key=True)

    assert (result.outcome, hidden.back) == (Outcome.FAILED, [None, None, b"somebody else's"])
    assert not any(seen.path == "/internal/import" for seen in hidden.fake.seen)
    assert hidden.owed == []


# -- a restore that dies ------------------------------------------------------------------------------------------------------


def dying(guarded: Guarded, imports: int) -> None:
    """Let the process die after so many imports."""
    import_ = guarded.keeper.server.import_
    left = [imports]

    def once(alias: str, data: bytes, content_type: str = "") -> bool:
        done = import_(alias, data, content_type)
        left[0] -= 1
        if not left[0]:
            raise Crash
        return done

    guarded.keeper.server.import_ = once  # type: ignore[method-assign]
    with pytest.raises(Crash):
        guarded.restore(guarded.key, with_key=True)
    guarded.keeper.close()
    guarded.keeper = guarded.another()


@pytest.mark.parametrize("imports", [1, 3])
@pytest.mark.parametrize("alters", [False, True])
def test_what_a_restore_brought_back_before_it_died_is_owed_and_hidden_by_the_next_apply(
    hidden: Guarded, imports: int, alters: bool
) -> None:
    hidden.fake.alters = (lambda data: b"anew: " + data) if alters else bytes
    dying(hidden, imports)
    assert len([data for data in hidden.back if data]) == imports
    assert (hidden.owed, hidden.ledger.verdict(sha(BAD))) == ([hidden.key], None)

    assert [result.outcome for result in hidden.apply(0)] == [Outcome.DONE]

    assert (hidden.back, hidden.fake.rows, hidden.owed) == ([None] * 3, {}, [])
    assert hidden.restore(hidden.key, with_key=True).outcome is Outcome.DONE
    assert None not in hidden.back


def test_of_what_a_restore_left_only_its_own_aliases_go_until_somebody_agrees_to_the_others(hidden: Guarded) -> None:
    dying(hidden, 1)
    hidden.fake.put(BAD, "image/png", alias="theirs.png")

    (result,) = hidden.apply(0)

    assert result.outcome is Outcome.SHARED
    assert (hidden.back, hidden.fake.data("theirs.png")) == ([None] * 3, BAD)
    assert hidden.owed == [hidden.key]
    plan = hidden.plan(allowance=1, drill_allowance=0)
    assert [done.outcome for done in hidden.executor.apply(plan, lambda _: True)] == [Outcome.DONE]
    assert (hidden.fake.rows, hidden.owed) == ({}, [])
    hidden.restore(hidden.key, with_key=True)
    assert [*hidden.back, hidden.fake.data("theirs.png")] == [BAD] * 4


@pytest.mark.parametrize("imports", [1, 3])
@pytest.mark.parametrize("alters", [False, True])
def test_a_restore_that_died_is_completed_by_the_next_also_where_pict_rs_writes_anew(
    hidden: Guarded, imports: int, alters: bool
) -> None:
    hidden.fake.alters = (lambda data: b"anew: " + data) if alters else bytes
    dying(hidden, imports)

    result = hidden.restore(hidden.key, with_key=True)

    assert (result.outcome, result.altered) == (Outcome.DONE, sha(b"anew: " + BAD) if alters else None)
    assert hidden.back == [hidden.fake.alters(BAD)] * 3
    hidden.look()
    assert hidden.owed == []


def test_other_bytes_that_no_try_of_ours_imported_are_not_taken_for_ours(hidden: Guarded) -> None:
    place = Place(hidden.settings.name, hidden.key, "removed", "", {"aliases": "\n".join(ALIASES), "content-type": "image/png"})
    noted = hidden.keeper.noted(place, sha(BAD), None)
    hidden.fake.put(b"somebody else's", "image/png", alias="b.png")

    with pytest.raises(Occupied):
        hidden.keeper.put_back(place, BAD)
    hidden.fake._clean_alias = lambda alias: None  # type: ignore[method-assign]
    with pytest.raises(Unreached, match="unfinished restore"):
        hidden.keeper.take_back(noted)


# -- a pict-rs that dies over a purge forgets it, and the files are gone all the same ------------------------------------------


def test_what_was_sealed_is_purged_though_its_file_is_lost(guarded: Guarded) -> None:
    guarded.fake.before = refusing("/internal/purge", 500, "sled-error")
    assert [result.outcome for result in guarded.apply()] == [Outcome.FAILED]
    guarded.fake.before = lambda seen: None
    guarded.fake.lose(ALIASES[0])

    assert [result.outcome for result in guarded.apply()] == [Outcome.DONE]
    assert guarded.fake.rows == {}


def test_a_file_that_was_lost_before_it_was_sealed_stays_owed(guarded: Guarded) -> None:
    guarded.fake.lose(ALIASES[0])

    (result,) = guarded.apply()

    assert (result.outcome, result.unreached) == (Outcome.FAILED, True)
    assert len(guarded.fake.rows) == 1


def test_what_is_hidden_comes_back_though_pict_rs_has_its_rows_again_without_a_file(hidden: Guarded) -> None:
    for alias in ALIASES[:2]:
        hidden.fake.put(BAD, "image/png", alias=alias)
    hidden.fake.lose(ALIASES[0])

    assert hidden.restore(hidden.key, with_key=True).outcome is Outcome.DONE
    assert hidden.back == [BAD] * 3


def test_a_row_without_aliases_and_file_that_a_killed_purge_left_swallows_no_restore(hidden: Guarded) -> None:
    hidden.fake.put(BAD, "image/png", alias=ALIASES[0])
    row = hidden.fake.row(ALIASES[0])
    assert row is not None
    hidden.fake.lose(ALIASES[0])
    row.aliases.clear()

    assert hidden.restore(hidden.key, with_key=True).outcome is Outcome.DONE
    assert hidden.back == [BAD] * 3


def test_rows_without_a_file_that_somebody_else_has_too_are_left_alone(hidden: Guarded) -> None:
    for alias in (ALIASES[0], "theirs.png"):
        hidden.fake.put(BAD, "image/png", alias=alias)
    hidden.fake.lose(ALIASES[0])

    result = hidden.restore(hidden.key, with_key=True)

    assert (result.outcome, result.unreached) == (Outcome.FAILED, True)
    assert hidden.fake.row("theirs.png") is not None
