"""What the gate let through to a pict-rs 0.4, whose API knows no content by its hash: found by a scan, then hidden, and nothing stays owed."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from tests.support.fake_pictrs import FakePictrs, running_pictrs
from tests.support.gates import ENGINE, named
from tests.support.installation import Yard
from tests.support.pictrs_stores import settings_of

from fediwarden.acting.blast_radius import Radii
from fediwarden.acting.executor import Custody, Outcome
from fediwarden.errors import Refused
from fediwarden.ledger import Ledger
from fediwarden.model import Answer, AnswerReason, Blob, ObjectRef, Sha256, StoreName
from fediwarden.platforms.pictrs.hashes import Hash
from fediwarden.policy import decide
from fediwarden.stores.memory import MemoryStore
from fediwarden.stores.open import open_keeper, open_reader, open_server
from fediwarden.stores.pictrs import PictrsKeeper
from fediwarden.vault import make_identities

STORE = StoreName("pictrs")
BAD = b"bad and late"
KEY = Hash.of(BAD, 7).hex


@dataclass
class Old(Yard):
    """A pict-rs 0.4 with a reader and a keeper, and a ledger in which the gate let something through that is suspected."""

    fake: FakePictrs = field(default_factory=FakePictrs)
    keeper: PictrsKeeper | None = None

    def hold(self, name: StoreName) -> Custody:
        assert self.keeper is not None
        return Custody(self.keeper, removes=True, platform=True)

    def holding(self, sha256: Sha256) -> Sequence[str]:
        return [key for store, key in self.ledger.platforms.holding(sha256) if store == STORE]

    def aliases(self) -> Iterator[str]:
        """As Lemmy tells them."""
        return iter([alias for row in self.fake.rows.values() for alias in row.aliases])


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Old]:
    with running_pictrs(FakePictrs(version="0.4")) as fake:
        made = Old(
            MemoryStore("unused"), Ledger.open(":memory:"), folder=tmp_path, keys=make_identities(tmp_path / "keys"), fake=fake
        )
        settings = settings_of(fake, tmp_path)
        keeper = open_keeper(
            settings,
            environment={},
            known=lambda key: made.ledger.platforms.names_of(STORE, key),
            remember=lambda ref: made.ledger.platforms.add_names(made.begun("apply"), [ref]),
            holding=made.holding,
        )
        assert isinstance(keeper, PictrsKeeper)
        made.keeper = keeper
        fake.put(BAD, "image/png", alias="b.png")
        fake.put(BAD, "image/png", alias="c.png")
        ref = ObjectRef(STORE, KEY, len(BAD), KEY)
        answer = Answer(ref, made.clock(), "pict-rs", True, AnswerReason.LATE, named(BAD), "image/png", debt=True)
        run = made.begun("gate")
        made.ledger.record(run, [], [answer])
        look = made.looker.look(Blob(ref, BAD, named(BAD), "image/png"))
        made.ledger.record(run, [(look, decide(look, made.policy))])  # from memory: it turned out suspected
        made.clock.turn(seconds=1)
        with closing(keeper), capture_logs():
            yield made


def scanned(old: Old) -> None:
    old.clock.turn(minutes=1)
    with closing(
        open_reader(settings_of(old.fake, old.folder), environment={}, aliases=old.aliases, holding=old.holding)
    ) as reader:
        old.scan(reader)


def test_before_a_scan_it_stays_owed_and_says_what_is_missing(old: Old) -> None:
    (result,) = old.apply()
    assert (result.outcome, "scan" in result.hint) == (Outcome.FAILED, True)
    assert old.owed == [KEY]
    assert old.fake.row("b.png") is not None


@pytest.mark.parametrize("tried_before", [False, True])
def test_after_a_scan_it_is_hidden_whole_and_nothing_stays_owed(old: Old, tried_before: bool) -> None:
    if tried_before:
        old.apply()
    scanned(old)
    assert "b.png" in old.owed

    old.apply()
    old.clock.turn(days=1)
    old.apply()

    assert old.owed == []
    assert (old.fake.row("b.png"), old.fake.row("c.png")) == (None, None)
    assert list(old.ledger.uploads.debts(ENGINE)) == []
    restorable = [event for event in old.ledger.hidden() if event.place and "aliases" in event.place.facts]
    assert {event.place.facts["aliases"] for event in restorable if event.place} == {"b.png\nc.png"}


def test_who_shares_it_is_seen_under_its_hash_too(old: Old) -> None:
    old.apply()  # fails, and keeps its key owed
    scanned(old)
    with closing(open_server(settings_of(old.fake, old.folder))) as server:
        radii = Radii(old.ledger, lambda _: server, None, private_messages=False)
        found = {owed.ref.key: radii.of(owed) for owed in old.ledger.owed()}

    assert {key: radius.aliases for key, radius in found.items()} == dict.fromkeys((KEY, "b.png"), ("b.png", "c.png"))


def test_who_shares_it_is_seen_for_its_file_in_the_folder_behind_pict_rs_too(old: Old) -> None:
    scanned(old)
    ref = ObjectRef(StoreName("files"), "0a/1b/file", len(BAD), "stamp")
    look = old.looker.look(Blob(ref, BAD, named(BAD)))
    old.ledger.record(old.begun("scan"), [(look, decide(look, old.policy))])
    owed = next(one for one in old.ledger.owed() if one.ref.store == "files")
    with closing(open_server(settings_of(old.fake, old.folder))) as server:
        beside = Radii(old.ledger, lambda _: server, None, private_messages=False).of(owed)
        alone = Radii(old.ledger, lambda _: None, None, private_messages=False).of(owed)

    assert (beside.aliases, beside.shared) == (("b.png", "c.png"), True)
    assert (alone.aliases, alone.shared) == ((), False)  # a copy in a folder of its own: nobody else loses it


def test_a_debt_that_left_memory_is_fetched_once_a_scan_has_met_its_bytes(old: Old) -> None:
    other = b"good and late"
    key = Hash.of(other, 7).hex
    ref = ObjectRef(STORE, key, len(other), key)
    with closing(
        open_reader(settings_of(old.fake, old.folder), environment={}, aliases=old.aliases, holding=old.holding)
    ) as reader:
        with pytest.raises(Refused, match=r"0\.4"):
            reader.fetch(ref, 1000)
        old.fake.put(other, "image/png", alias="g.png")
        scanned(old)
        assert reader.fetch(ref, 1000).data == other
