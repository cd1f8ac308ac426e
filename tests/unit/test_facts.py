"""What the gate answered and owes, and everything else that is known of bytes, is shown; a person's word lets bytes pass."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.support.ledgers import ENGINE, NOW, a_decision, a_hash, a_look, a_ref, do, flagged

from fediwarden.app import App
from fediwarden.cli.doctor import Diagnosis
from fediwarden.cli.main import code_of
from fediwarden.cli.setup import _tell
from fediwarden.ledger import GATE, Doubt, Ledger, LegacyWord, Listed
from fediwarden.model import (
    Act,
    Answer,
    AnswerReason,
    Decision,
    DeedState,
    EngineVersion,
    Name,
    NameKind,
    ObjectRef,
    PlatformDeed,
    Reason,
    RunId,
    Sha256,
    Standing,
    Step,
    StoreName,
    TraceRecord,
)

REFUSED = a_hash("refused")


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """The ledger of the home that commands find."""
    monkeypatch.setenv("FEDIWARDEN_HOME", str(tmp_path))
    monkeypatch.setattr(App, "open_log", lambda _: None)  # it sets up logging for a whole process
    with Ledger.open(tmp_path / "ledger.sqlite3") as made:
        yield made


@pytest.fixture
def run(ledger: Ledger) -> RunId:
    return ledger.begin("gate", {}, NOW)


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def call(*arguments: str, expect: int = 0) -> str:
        capsys.readouterr()
        assert code_of(arguments) == expect, capsys.readouterr().err
        return capsys.readouterr().out

    return call


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def answered(key: str, *, passed: bool, why: AnswerReason, at: datetime, **more: Any) -> Answer:
    return Answer(a_ref(key, store=GATE), at, "pict-rs", passed, why, a_hash(key), **more)


@pytest.fixture
def busy(ledger: Ledger, run: RunId) -> None:
    """A gate that passed two, let one through as a debt, and refused two, one of them unsealed."""
    now = datetime.now(UTC)
    look = a_look(a_ref("refused", store=GATE), content="refused", at=now)
    answers = [
        answered("fine", passed=True, why=AnswerReason.LOOKED, at=now),
        answered("again", passed=True, why=AnswerReason.KNOWN, at=now),
        answered("late", passed=True, why=AnswerReason.LATE, at=now - timedelta(seconds=1), debt=True),
        answered("refused", passed=False, why=AnswerReason.LOOKED, at=now, sealed=True),
        answered("odd", passed=False, why=AnswerReason.KNOWN, at=now, sealed=False, problem="the vault is full"),
    ]
    ledger.record(run, [(look, a_decision())], answers)


@pytest.mark.usefixtures("busy")
def test_status_counts_answers_by_reason_and_says_what_is_unsealed_or_owed(shown: Callable[..., str]) -> None:
    text = shown("status")
    assert "5 uploads answered today (UTC): 3 passed, 2 refused" in text
    assert "1  debts: passed and not scanned yet" in text
    assert "1  refused and NOT SEALED" in text
    (told,) = lines(shown("status", "--json"))
    assert told["gate"]["passed_today"] == {"looked": 1, "known": 1, "late": 1}
    assert told["gate"]["refused_today"] == {"looked": 1, "known": 1}
    assert (told["gate"]["refused_unsealed_today"], told["gate"]["debts"], told["gate"]["lapsed"]) == (1, 1, 0)


def test_the_engine_is_said_to_lack_a_format_only_where_the_bytes_have_it(
    ledger: Ledger, run: RunId, shown: Callable[..., str]
) -> None:
    now = datetime.now(UTC)
    engine = EngineVersion("")  # as status counts where no model is installed
    for content, what, claimed, size in [
        ("a jxl", "picture (jxl)", "application/octet-stream", 9),
        ("letters", "text (text)", "image/png", 12),
        ("noise", "unknown (unknown)", "image/png", 9),
        ("an archive", "zip", "image/png; x=y", 900),
        ("a form", "unknown (unknown)", "image/png", 900),
        ("mp4 without its decoder", "mp4", "video/mp4", 900),
    ]:
        ref = a_ref(content, size=size)
        look = a_look(ref, Standing.BROKEN, engine=engine, reason=Reason.UNSUPPORTED, at=now)
        look = replace(look, problem=f"{what} is not a picture or video that can be opened here")
        debt = Answer(ref, now, "pict-rs", True, AnswerReason.BROKEN, look.sha256, claimed, debt=True)
        ledger.record(run, [(look, None)], [debt])

    text = shown("status")

    (told,) = lines(shown("status", "--json"))
    assert told["gate"]["debts_unopened"] == {"image/jxl": 1, "video/mp4": 1}
    assert told["gate"]["debts_undecoded"] == {"image/png": 3}
    assert told["gate"]["debts_enveloped"] == 1
    assert "cannot open image/png" not in text
    assert "3  of them cannot be decoded (said to be image/png)" in text


@pytest.mark.usefixtures("busy")
def test_what_the_gate_refused_is_listed_with_the_hash_that_clear_takes(ledger: Ledger, shown: Callable[..., str]) -> None:
    text = shown("list", "--store", "gate")

    assert len(text.splitlines()) == 1
    assert REFUSED in text.split()
    assert [line["sha256"] for line in lines(shown("list", "--store", "gate", "--json"))] == [REFUSED]
    assert shown("list") == ""
    shown("clear", REFUSED, "--because", "seen by two of us")
    assert ledger.verdict(REFUSED) is not None


def test_apply_takes_an_object_by_its_alias_and_says_which_it_does_not_know(
    ledger: Ledger, run: RunId, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("a.jpg", "b.jpg"):
        ledger.record(run, [(a_look(a_ref(key)), a_decision())])
    names = (Name(NameKind.ALIAS, "one.png"),)
    ledger.platforms.add_names(run, [ObjectRef(a_ref().store, "a.jpg", 1, "", names=names)])
    (tmp_path / "media").mkdir()
    monkeypatch.setenv("FEDIWARDEN_STORES__MEDIA__URL", str(tmp_path / "media"))
    monkeypatch.setenv("FEDIWARDEN_PROFILE", "other")
    assert code_of(("vault", "init")) == 0
    capsys.readouterr()

    code_of(("apply", "--only", "one.png", "--yes", "--json"))

    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("{")]  # and no log
    assert [line["key"] for line in lines("\n".join(told[:-1]))] == ["a.jpg"]
    assert code_of(("apply", "--only", "one.png", "--only", "nosuchkey", "--yes")) == 4
    said = capsys.readouterr()
    assert (said.out, said.err.splitlines()[0]) == ("", "fediwarden: the ledger knows no object nosuchkey")


def test_status_is_silent_about_a_gate_that_never_was(ledger: Ledger, shown: Callable[..., str]) -> None:
    assert ledger.path
    assert "gate" not in shown("status")


@pytest.mark.usefixtures("busy")
def test_debts_are_listed_until_they_are_paid(ledger: Ledger, run: RunId, shown: Callable[..., str]) -> None:
    (debt,) = lines(shown("list", "--debts", "--json"))
    assert (debt["sha256"], debt["why"], debt["broken"]) == (a_hash("late"), "late", False)
    assert a_hash("late") in shown("list", "--debts")

    ledger.record(run, [(a_look(a_ref("late")), None)])
    assert shown("list", "--debts") == ""


@pytest.mark.usefixtures("busy")
def test_a_person_ends_a_debt_over_a_file_that_is_lost_for_good(ledger: Ledger, shown: Callable[..., str]) -> None:
    shown("lapse", a_hash("nobody knows"), "--because", "x", expect=4)
    shown("lapse", a_hash("late"), expect=2)

    (told,) = lines(shown("lapse", a_hash("late").upper(), "--because", "the disk died", "--json"))

    assert (told["sha256"], told["debts"], told["because"]) == (a_hash("late"), 1, "the disk died")
    assert shown("list", "--debts") == ""
    (told,) = lines(shown("status", "--json"))
    assert (told["gate"]["debts"], told["gate"]["lapsed"]) == (0, 1)


def test_status_tells_which_listing_is_not_believed(ledger: Ledger, run: RunId, shown: Callable[..., str]) -> None:
    now = datetime.now(UTC)
    doubt = Doubt(StoreName("pictures"), 2, 41, 39, now - timedelta(hours=3))
    ledger.watching.remember_listed(doubt.store, Listed(41, run, doubt), now)

    assert "NOT BELIEVED for 3 h: pictures lists 2 objects, and listed 41" in shown("status")
    (told,) = lines(shown("status", "--json"))
    assert [(one["store"], one["listed"], one["accepted"], one["missing"]) for one in told["doubted"]] == [
        ("pictures", 2, 41, 39)
    ]


def test_an_empty_file_is_counted_apart_from_what_is_not_scanned(ledger: Ledger, run: RunId, shown: Callable[..., str]) -> None:
    """pict-rs leaves one where an upload fails in ExifTool, FFmpeg or ImageMagick."""
    empty = replace(
        a_look(a_ref("empty")), standing=Standing.BROKEN, findings=(), reason=Reason.EMPTY, problem="the object is empty"
    )
    cut = replace(a_look(a_ref("cut")), standing=Standing.BROKEN, findings=(), reason=Reason.TRUNCATED, problem="cut")
    ledger.record(run, [(empty, None), (cut, None)])

    (told,) = lines(shown("status", "--json"))
    assert (told["objects"], told["not_scanned"], told["empty"]) == (2, 1, 1)
    assert "1  empty files" in shown("status")
    assert [line["key"] for line in lines(shown("list", "--not-scanned", "--json"))] == ["cut"]


@pytest.mark.usefixtures("busy")
def test_a_refused_upload_is_explained_by_its_hash_and_can_be_cleared(ledger: Ledger, shown: Callable[..., str]) -> None:
    text = shown("explain", REFUSED)
    assert "gate: refused, looked at; sealed" in text
    assert "it lies in no store" in text

    assert "passes from now on" in shown("clear", REFUSED, "--because", "a statue")

    verdict = ledger.verdict(REFUSED)
    assert verdict is not None
    assert (verdict.step, verdict.because) == (Step.PASS, "a statue")
    assert "a person: pass" in shown("explain", REFUSED)
    (told,) = lines(shown("explain", REFUSED, "--json"))
    assert [word["because"] for word in told["words"]] == ["a statue"]
    assert [answer["why"] for answer in told["answers"]] == ["looked"]


def test_clearing_by_key_ends_what_is_owed_and_stands_over_later_looks(
    ledger: Ledger, run: RunId, shown: Callable[..., str]
) -> None:
    ledger.record(run, [(a_look(), a_decision())])
    assert [owed.ref.key for owed in ledger.owed()] == ["a.jpg"]

    (told,) = lines(shown("clear", "a.jpg", "--because", "a cat", "--json"))

    assert (told["sha256"], told["objects"], told["hidden"]) == (a_hash("a.jpg"), 1, [])
    assert list(ledger.owed()) == []


def test_a_word_that_a_failed_restore_left_is_taken_back_and_other_words_are_not(
    ledger: Ledger, run: RunId, shown: Callable[..., str]
) -> None:
    shown("clear", REFUSED, "--because", "a statue")
    shown("clear", REFUSED, "--take-back", "--because", "no", expect=4)  # nothing with these bytes is hidden
    flagged(ledger, a_ref())
    do(ledger, a_ref(), DeedState.BEGUN, DeedState.SEALED, DeedState.MOVED, DeedState.DONE)
    shown("clear", "a.jpg", "--take-back", "--because", "no", expect=4)  # nobody said that they pass
    ledger.clear(run, a_hash("a.jpg"), Decision(Step.PASS, "restored by a person", "a cat", by="ada"))
    do(ledger, a_ref(), DeedState.BEGUN, DeedState.FAILED, act=Act.RESTORE)
    assert [event.key for event in ledger.maintenance.words_left()] == ["a.jpg"]

    shown("clear", "a.jpg", "--take-back", "--because", "it never came back")

    verdict = ledger.verdict(a_hash("a.jpg"))
    assert verdict is not None
    assert verdict.step is Step.QUARANTINE
    assert list(ledger.maintenance.words_left()) == []


def test_a_word_about_bytes_never_met_waits_for_them_and_nonsense_is_refused(ledger: Ledger, shown: Callable[..., str]) -> None:
    shown("clear", a_hash("tomorrow").upper(), "--because", "announced")
    assert ledger.verdict(a_hash("tomorrow")) is not None
    shown("clear", "nothing.jpg", "--because", "x", expect=4)
    shown("clear", a_hash("no reason"), expect=2)
    assert ledger.verdict(a_hash("no reason")) is None


def test_a_key_with_other_contents_in_two_stores_is_not_cleared_by_guessing(
    ledger: Ledger, run: RunId, shown: Callable[..., str]
) -> None:
    other = a_ref(store=GATE)
    ledger.record(run, [(a_look(), a_decision()), (a_look(other, content="other"), a_decision())])
    shown("clear", "a.jpg", "--because", "x", expect=4)
    shown("clear", "a.jpg", "--because", "x", "--store", "gate")
    assert ledger.verdict(a_hash("other")) is not None
    assert ledger.verdict(a_hash("a.jpg")) is None


def test_explain_shows_names_traces_deeds_and_what_an_earlier_tool_said(
    ledger: Ledger, run: RunId, shown: Callable[..., str]
) -> None:
    ref = a_ref()
    ledger.record(run, [(a_look(ref), a_decision())])
    names = (Name(NameKind.ALIAS, "one.png"), Name(NameKind.PROXIED, "https://far.example/x.png\x1b[31m"))
    ledger.platforms.add_names(run, [ObjectRef(ref.store, ref.key, 1, "", names=names)])
    counts = {"posts": 2, "comments": 0}
    ledger.platforms.traced(run, TraceRecord(NOW, "ada", "report 7", "one.png", a_hash("a.jpg"), counts=counts))
    deed = PlatformDeed(NOW, "ada", "lemmy", "remove post", "https://l.example/post/1", DeedState.DONE, a_hash("a.jpg"))
    ledger.platforms.did(run, deed)
    ledger.legacy.add(run, ref.store, [(ref.key, LegacyWord("fedi-safety", suspected=False, at="2023"))])

    text = shown("explain", "one.png")

    assert "alias    one.png" in text
    assert "\x1b" not in text
    assert "trace: by ada, “report 7”: 2 posts" in text
    assert "lemmy: remove post https://l.example/post/1: done, by ada" in text
    assert "fedi-safety called it safe, 2023 (history: it decides nothing)" in text
    (told,) = lines(shown("explain", "a.jpg", "--json"))
    assert [name["kind"] for name in told["names"]] == ["alias", "proxied from"]
    assert (len(told["traces"]), len(told["platform_deeds"]), len(told["legacy"])) == (1, 1, 1)
    assert told["engine"] == ENGINE


def test_import_legacy_prints_what_was_missed_and_asks_which_store(
    tmp_path: Path, ledger: Ledger, shown: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.unit.test_legacy import written

    file = written(tmp_path / "lemmy_safety.db", [("a.jpg", False), ("b.jpg", None)])
    shown("import-legacy", str(file), expect=4)
    monkeypatch.setenv("FEDIWARDEN_STORES__MEDIA__URL", str(tmp_path))
    text = shown("import-legacy", str(file))
    assert "2 rows: 1 called safe, 0 suspected, 1 silently skipped" in text
    assert "1 that it skipped are queued" in text
    told = lines(shown("import-legacy", str(file), "--json"))
    assert [(line["missed"], line["key"]) for line in told[:-1]] == [("skipped", "b.jpg")]
    assert told[-1]["missed"] == {"skipped": 1, "called safe": 0, "still there": 0, "never met": 0}
    assert [entry.ref.key for entry in ledger.entries(not_scanned=True)] == ["b.jpg"]


def test_a_debt_is_ended_by_how_its_hash_begins_where_that_means_one(
    ledger: Ledger, run: RunId, shown: Callable[..., str]
) -> None:
    now = datetime.now(UTC)
    late = answered("late", passed=True, why=AnswerReason.LATE, at=now, debt=True)
    other = a_hash("late")[:10] + "f" * 54
    twin = replace(late, ref=replace(late.ref, key="twin"), sha256=Sha256(other))
    ledger.record(run, [], [late, twin])

    shown("lapse", a_hash("late")[:7], "--because", "x", expect=4)
    shown("lapse", a_hash("late")[:10], "--because", "x", expect=4)
    (told,) = lines(shown("lapse", other[:14].upper(), "--because", "the disk died", "--json"))

    assert (told["sha256"], told["debts"]) == (other, 1)
    (left,) = lines(shown("list", "--debts", "--json"))
    assert left["sha256"] == a_hash("late")


def test_the_last_try_of_a_lost_object_is_told_before_what_was_seen_earlier(
    ledger: Ledger, run: RunId, shown: Callable[..., str]
) -> None:
    reason = "pict-rs knows it, and its file is not there"
    ledger.record(run, [(a_look(), a_decision(Step.PASS))])
    lost = replace(a_look(standing=Standing.UNREACHED, at=NOW + timedelta(days=1)), problem=reason)
    ledger.record(run, [(lost, None)])

    assert f"(unreached: {reason})" in shown("list", "--not-scanned")
    told = shown("explain", lost.ref.key)
    assert told.index(f"tried    {lost.at:%Y-%m-%d}") < told.index(reason) < told.index("looked ")


def test_apply_says_that_the_policy_cannot_be_read_and_acts_on_what_was_decided(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ledger.path
    (tmp_path / "policy.toml").write_text("version = \n")
    monkeypatch.setenv("FEDIWARDEN_POLICY__FILE", str(tmp_path / "policy.toml"))
    monkeypatch.setenv("FEDIWARDEN_PROFILE", "other")
    assert code_of(("vault", "init")) == 0
    capsys.readouterr()

    code = code_of(("apply", "--yes"))

    told = capsys.readouterr()
    assert (code, told.out) == (0, "nothing is owed\n")
    assert "policy.toml" in told.err
    assert "what was decided before is acted on" in told.err
    assert code_of(("status",)) == 4


def test_doctor_prints_a_line_a_finding_where_nobody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    long = "words " * 60

    _tell([Diagnosis("cage", True, "every layer is there"), Diagnosis("ledger", False, long, "ask for help")])

    assert capsys.readouterr().out.splitlines() == ["ok  cage: every layer is there", f"NO  ledger: {long} -> ask for help"]
