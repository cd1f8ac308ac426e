"""Traces of objects in a real ledger, asked of a real PostgreSQL with Lemmy's tables: for whom, on what record, and how they are sealed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from tests.support.postgres import Postgres

from fediwarden.errors import Misconfigured, Unreached
from fediwarden.ledger import Ledger
from fediwarden.model import (
    Decision,
    EngineVersion,
    Kind,
    Look,
    Name,
    NameKind,
    ObjectRef,
    RunId,
    Sha256,
    Standing,
    Step,
    StoreName,
)
from fediwarden.platforms.lemmy.database import Database
from fediwarden.platforms.lemmy.model import UseKind
from fediwarden.platforms.pictrs.words import Item
from fediwarden.tracing import Tracing
from fediwarden.vault import Vault, Vaults, make_identities

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
STORE = StoreName("pictrs")
ALIAS = "aaaaaaaa-0000-4000-8000-000000000001.jpeg"
PREVIEW = "aaaaaaaa-0000-4000-8000-000000000002.webp"
BAD, GOOD = Sha256("b" * 64), Sha256("c" * 64)
ENGINE = EngineVersion("e")


@dataclass
class Pictrs:
    """Names, as a pict-rs tells them; or no answer."""

    names: tuple[str, ...] = ()
    down: bool = False
    asked: list[str] = field(default_factory=list)
    repository: object | None = "its database"

    def aliases(self, alias: str) -> tuple[str, ...]:
        self.asked.append(alias)
        if self.down:
            raise Unreached("no answer")
        return self.names

    def find(self, sha256: Sha256, size: int, content_type: str = "") -> Item | None:
        if self.down:
            raise Unreached("no answer")
        return Item("key", self.names) if self.names else None


@dataclass
class Desk:
    """A ledger with one suspected and one passed object, a vault, and who may ask."""

    ledger: Ledger
    run: RunId
    vault: Vault
    identities: list[Path]
    url: str

    def tracing(self, server: Pictrs | None = None, *, private_messages: bool = False, seals: bool = True) -> Tracing:
        servers = {STORE: server} if server else {}
        vaults = Vaults(self.vault, self.vault) if seals else None
        return Tracing(
            self.ledger, self.run, Database(self.url, 10), servers, vaults, lambda: NOW, "eve", private_messages=private_messages
        )


@pytest.fixture(scope="module")
def lemmy(postgres: Postgres) -> str:
    """A Lemmy 0.19."""
    return postgres.database(Path("lemmy_019.sql"), Path("lemmy_019_data.sql"))


@pytest.fixture
def desk(tmp_path: Path, lemmy: str) -> Iterator[Desk]:
    """One of each test's own."""
    identities = make_identities(tmp_path / "keys")
    vault = Vault(tmp_path / "vault", [identity.public for identity in identities])
    with Ledger.open(tmp_path / "ledger.sqlite3") as ledger:
        run = ledger.begin("test", {}, NOW)
        for sha256, key, alias, step in ((BAD, "bad", ALIAS, Step.QUARANTINE), (GOOD, "good", PREVIEW, Step.PASS)):
            ref = ObjectRef(STORE, key, 10, key, NOW, (Name(NameKind.ALIAS, alias), Name(NameKind.IDENTIFIER, f"files/{key}")))
            ledger.platforms.add_names(run, [ref])
            look = Look(ref, Standing.SEEN, NOW, sha256, ENGINE, Kind("jpeg", 8, 8))
            ledger.record(run, [(look, Decision(step, "a rule", "because", "policy"))])
        yield Desk(ledger, run, vault, [identity.path for identity in identities], lemmy)


@pytest.mark.parametrize(
    "text", ["bad", ALIAS, "files/bad", BAD, BAD.upper(), f"https://lemmy.example/pictrs/image/{ALIAS}?format=webp"]
)
def test_key_alias_hash_and_address_mean_the_same_object(desk: Desk, text: str) -> None:
    subject = desk.tracing().subject(text)

    assert (subject.sha256, subject.aliases, subject.suspected) == (BAD, (ALIAS,), "suspected: a rule")
    assert [entry.ref.key for entry in subject.objects] == ["bad"]


def test_what_pict_rs_cannot_tell_by_its_key_about_a_picture_that_nobody_uploaded_is_a_limit(desk: Desk) -> None:
    by_key, by_database = Pictrs(("cached.png",), repository=None), Pictrs(("cached.png",))

    limits = [
        tracing.ask(tracing.subject(name), "a report").limits
        for tracing, name in (
            (desk.tracing(by_key), "cached.png"),
            (desk.tracing(by_database), "cached.png"),
            (desk.tracing(Pictrs((ALIAS,), repository=None)), ALIAS),
        )
    ]

    assert [any("cached copy of a remote picture" in limit for limit in each) for each in limits] == [True, False, False]


def test_a_trace_that_could_be_asked_in_part_is_sealed_with_what_answered(desk: Desk) -> None:
    (owed,) = desk.ledger.owed()
    tracing = desk.tracing()
    tracing._tracer = Database(desk.url, 0.06)
    with psycopg.connect(desk.url) as busy:
        busy.execute("LOCK TABLE community IN ACCESS EXCLUSIVE MODE")
        problem = tracing.seal_for(owed)

    assert problem == ""
    (record,) = desk.ledger.platforms.traces(BAD)
    assert record.sealed is not None
    sealed = json.loads(desk.vault.open(record.sealed, desk.identities))
    assert any("community.icon" in limit for limit in sealed["limits"])
    assert {use["id"] for use in sealed["uses"] if use["kind"] == "post"} == {401, 403}


def test_a_suspected_object_may_be_traced_and_who_asked_is_on_record(desk: Desk) -> None:
    tracing = desk.tracing()

    trace = tracing.ask(tracing.subject("bad"), full=True)

    assert [person.name for person in trace.uploaders] == ["alice"]
    (record,) = desk.ledger.platforms.traces(BAD)
    assert (record.actor, record.reason, record.subject) == ("eve", "suspected: a rule (shown in full)", "bad")
    assert record.counts["posts"] == 2


def test_what_is_not_suspected_is_not_traced_without_a_reason(desk: Desk) -> None:
    tracing = desk.tracing()
    subject = tracing.subject("good")

    with pytest.raises(Misconfigured, match="not suspected"):
        tracing.ask(subject)
    assert desk.ledger.platforms.traces(GOOD) == []

    tracing.ask(subject, "a user reported it")
    assert [record.reason for record in desk.ledger.platforms.traces(GOOD)] == ["a user reported it"]


def test_an_alias_that_the_ledger_does_not_know_needs_a_reason(desk: Desk) -> None:
    tracing = desk.tracing()
    subject = tracing.subject("a_b%c.png")

    assert (subject.sha256, subject.suspected) == (None, "")
    with pytest.raises(Misconfigured):
        tracing.ask(subject)


@pytest.mark.parametrize("text", ["", "  ", "https://lemmy.example/api/v3/image_proxy?url="])
def test_nothing_means_nobody(desk: Desk, text: str) -> None:
    with pytest.raises(Misconfigured):
        desk.tracing().subject(text)
    assert Database(desk.url, 10).trace(["", ALIAS], [""], private_messages=True).uses == (
        Database(desk.url, 10).trace([ALIAS], [], private_messages=True).uses
    )


def test_a_cached_remote_picture_is_traced_by_its_address(desk: Desk) -> None:
    tracing = desk.tracing()
    subject = tracing.subject(
        "https://lemmy.example/api/v3/image_proxy?url=https%3A%2F%2Fimg.example%2Fx%20y.png%3Fa%3D1%26b%3D2"
    )

    assert subject.urls == ("https://img.example/x y.png?a=1&b=2",)
    assert {use.id for use in tracing.ask(subject, "asked").uses if use.kind is UseKind.POST} == {404, 409}


def test_a_cached_picture_of_another_lemmy_is_no_alias_of_ours(desk: Desk) -> None:
    remote = "https://far.example/pictrs/image/bbbbbbbb-0000-4000-8000-000000000009.png"
    desk.ledger.platforms.add_names(desk.run, [ObjectRef(STORE, "bad", 10, "bad", NOW, (Name(NameKind.PROXIED, remote),))])

    subject = desk.tracing().subject(remote)

    assert (subject.sha256, subject.suspected) == (BAD, "suspected: a rule")
    assert remote in subject.urls
    assert ALIAS in subject.aliases


@pytest.mark.parametrize(
    "text",
    [
        ALIAS.upper().replace("JPEG", "jpeg"),
        ALIAS.replace("-", ""),
        f"https://lemmy.example/pictrs/image/%{ord(ALIAS[0]):02x}{ALIAS[1:]}",
    ],
)
def test_an_alias_may_be_named_in_any_spelling_that_pict_rs_reads(desk: Desk, text: str) -> None:
    subject = desk.tracing().subject(text)

    assert (subject.aliases, subject.suspected) == ((ALIAS,), "suspected: a rule")


def test_pict_rs_is_asked_for_further_names_and_its_silence_is_told(desk: Desk) -> None:
    more = desk.tracing(Pictrs((ALIAS, "another.png"))).subject("bad")
    silent = desk.tracing(Pictrs(down=True)).subject("bad")

    assert more.aliases == (ALIAS, "another.png")
    assert silent.aliases == (ALIAS,)
    assert "no answer" in silent.limits[0]


def test_an_unanswered_question_is_on_record_too(desk: Desk) -> None:
    desk.url = "postgresql://nobody@127.0.0.1:1/x"
    tracing = desk.tracing()

    with pytest.raises(Unreached):
        tracing.ask(tracing.subject("bad"))

    assert desk.ledger.platforms.traces(BAD)[0].problem


def test_a_trace_is_sealed_whole_before_hiding_and_a_second_time_costs_nothing(desk: Desk) -> None:
    (owed,) = desk.ledger.owed()

    assert desk.tracing().seal_for(owed) == ""
    assert desk.tracing().seal_for(owed) == ""

    (manifest,) = desk.vault.sealed()
    assert manifest.because["trace of"] == BAD
    assert {record.sealed for record in desk.ledger.platforms.traces(BAD)} == {manifest.sha256}
    sealed = json.loads(desk.vault.open(manifest.sha256, desk.identities[:1]))
    assert {session["ip"] for session in sealed["sessions"]} >= {"203.0.113.7", "2001:db8::7"}
    assert "SECRET" not in str(sealed)


def test_what_the_gate_knew_by_its_hash_alone_is_traced_by_the_names_of_the_same_bytes(desk: Desk) -> None:
    ref = ObjectRef(STORE, "a hash", 10, "a hash")
    decision = Decision(Step.QUARANTINE, "a rule", "because", "policy")
    desk.ledger.record(desk.run, [(Look(ref, Standing.SEEN, NOW, BAD, ENGINE, Kind("jpeg", 8, 8)), decision)])
    owed = next(one for one in desk.ledger.owed() if one.ref.key == "a hash")

    assert desk.tracing().seal_for(owed) == ""
    assert desk.ledger.platforms.traces(BAD)[0].counts["uploaders"] == 1


def test_a_trace_that_cannot_be_taken_is_a_word_and_no_hindrance(desk: Desk) -> None:
    desk.url = "postgresql://nobody@127.0.0.1:1/x"
    (owed,) = desk.ledger.owed()

    problem = desk.tracing().seal_for(owed)

    assert "cannot be reached" in problem
    assert list(desk.vault.sealed()) == []
    assert desk.ledger.platforms.traces(BAD)[0].problem == problem


def test_a_redacted_trace_tells_no_mail_address_no_network_address_and_no_user_agent(desk: Desk) -> None:
    tracing = desk.tracing()
    whole = tracing.ask(tracing.subject("bad"))

    told = json.dumps(whole.redacted().as_json(), default=str)

    for private in ("alice@example.org", "203.0.113.7", "2001:db8::7", "Mozilla"):
        assert private in json.dumps(whole.as_json(), default=str)
        assert private not in told
    assert len(whole.redacted().sessions) == len(whole.sessions)
