"""Forms of pict-rs 0.6 that an earlier gate took for pictures: named, their debts ended by a person, what was sealed taken out of them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from tests.support.command import Home
from tests.support.gates import named
from tests.support.media_makers import still
from tests.unit.gate.test_forms import as_pictrs_06

from fediwarden.ledger import GATE, Ledger
from fediwarden.model import (
    Answer,
    AnswerReason,
    Decision,
    EngineVersion,
    Kind,
    Look,
    Note,
    ObjectRef,
    Reason,
    RunId,
    Standing,
    Step,
    StoreName,
)

AT = datetime.now(UTC) - timedelta(hours=1)
PICTRS = StoreName("pictrs")
PICTURE = still("png", 64, 48)
SEALED, OWED = as_pictrs_06(PICTURE, "image/png")[0], as_pictrs_06(still("jpeg", 64, 48))[0]
JXL = b"\xff\x0a, as far as anybody here can tell"


def taken_for_a_picture(ledger: Ledger, run: RunId, data: bytes, claimed: str, *, passed: bool, inside: int = 0) -> None:
    """As the gate of November 2026 put it on record, read there: run beside pict-rs 0.6.0-rc.6."""
    ref = ObjectRef(PICTRS if passed else GATE, named(data), len(data), "")
    what = "unknown (unknown)" if inside else "picture (jxl)"
    notes = (Note("claim", "object", len(data), f"claimed {claimed}, is unknown"), Note("picture", "inside", inside, ""))
    look = Look(
        ref,
        Standing.BROKEN,
        AT,
        named(data),
        EngineVersion("1"),
        Kind("unknown"),
        notes=notes if inside else (),
        reason=Reason.UNSUPPORTED,
        problem=f"{what} is not a picture or video that can be opened here",
    )
    why, decision = (
        (AnswerReason.BROKEN, None) if passed else (AnswerReason.LOOKED, Decision(Step.QUARANTINE, "bitmap", "a stand-in"))
    )
    sealed = None if passed else True
    ledger.record(run, [(look, decision)], [Answer(ref, AT, "pict-rs", passed, why, named(data), claimed, passed, sealed=sealed)])


def test_envelopes_are_named_unwrapped_and_their_debts_ended_once_a_listing_has_cleared_them(home: Home) -> None:
    with Ledger.open(home.folder / "ledger.sqlite3") as ledger:
        run = ledger.begin("gate", {}, AT)
        taken_for_a_picture(ledger, run, SEALED, "image/png", passed=False, inside=len(PICTURE))
        taken_for_a_picture(ledger, run, OWED, "image/jpeg", passed=True, inside=len(OWED) - 262)
        taken_for_a_picture(ledger, run, JXL, "image/jxl", passed=True)
    home.vault().seal(
        SEALED, named(SEALED), store=GATE, key="a key", at=AT, because={"content-type": "image/png", "rule": "bitmap"}
    )
    told = home.run("vault", "envelopes", "--json").lines
    assert {(one["sha256"], one["sealed"], one["debt"] is not None, one["listed"]) for one in told} == {
        (named(SEALED), True, False, False),
        (named(OWED), False, True, True),
    }
    early = home.run("vault", "envelopes", "--lapse", "--because", "too early", "--yes", "--json").lines
    assert [one["lapsed"] for one in early] == [False, False]
    with Ledger.open(home.folder / "ledger.sqlite3") as ledger:
        listed = ledger.begin("scan", {}, datetime.now(UTC))
        ledger.swept(listed, PICTRS)  # a complete listing, without them

    late = home.run("vault", "envelopes", "--lapse", "--because", "looked at by a scan", "--yes", "--json").lines
    keys = home.identities[:1]
    opened = [home.run("vault", "unwrap", "--identity", *keys, "--because", "a case", "--json").last for _ in range(2)]

    assert {one["sha256"] for one in late if one["lapsed"]} == {named(OWED)}
    assert (
        opened
        == [
            {
                "envelope": named(SEALED),
                "sha256": named(PICTURE),
                "size": len(PICTURE),
                "content_type": "image/png",
                "problem": "",
            }
        ]
        * 2
    )
    assert home.unsealed(PICTURE)
    assert home.unsealed(SEALED)
    with home.ledger() as ledger:
        assert [debt.sha256 for debt in ledger.uploads.debts(EngineVersion("1"))] == [named(JXL)]
        totals = ledger.uploads.totals(EngineVersion("1"), AT - timedelta(days=1))
        assert (dict(totals.unopened), totals.enveloped, totals.lapsed) == ({"image/jxl": 1}, 0, 1)
        assert sum(totals.refused.values()) == 1  # unwrapping is no answer
    assert home.run("verify", "--local", "--json").last["agrees"]
    assert all(one["unwrapped"] for one in home.run("vault", "envelopes", "--json").lines if one["sealed"])


def test_what_is_no_envelope_cannot_be_unwrapped(home: Home, tmp_path: Path) -> None:
    home.vault().seal(PICTURE, named(PICTURE), store=GATE, key="a key", at=AT, because={})
    told = home.run(
        "vault", "unwrap", named(PICTURE), "0" * 64, "--identity", home.identities[0], "--because", "x", "--json", expect=3
    ).lines
    assert [one["sha256"] for one in told] == [None, None]
    assert all(one["problem"] for one in told)
