"""What the ledger knows of uploads, other names, traces and platforms, in words and JSON, for `status`, `list` and `explain`."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from fediwarden.app import App
from fediwarden.cli.output import emit, plain, result, size
from fediwarden.ledger import GATE, Doubt, Entry, UploadTotals
from fediwarden.model import Answer, Debt, EngineVersion, Name, NameKind, PlatformDeed, Sha256, TraceRecord

if TYPE_CHECKING:
    from fediwarden.watch.heartbeat import Beat

NAMED = {
    NameKind.ALIAS: "alias",
    NameKind.IDENTIFIER: "file",
    NameKind.VARIANT: "variant",
    NameKind.ADDRESS: "served from",
    NameKind.PROXIED: "cached of",
}
SHOWN = 12  # names of an object that are written out; the rest is counted


def gate_json(totals: UploadTotals) -> dict[str, object]:
    """The gate's numbers for programs: answers of today (UTC), debts as they stand."""
    return {
        "passed_today": {why.value: number for why, number in totals.passed.items()},
        "refused_today": {why.value: number for why, number in totals.refused.items()},
        "refused_unsealed_today": totals.unsealed,
        "debts": totals.debts,
        "debts_broken": totals.debts_broken,
        "oldest_debt": totals.oldest_debt,
        "lapsed": totals.lapsed,
        "debts_unopened": dict(totals.unopened),
        "debts_undecoded": dict(totals.undecoded),
        "debts_enveloped": totals.enveloped,
        "last_ten_broken": totals.last_ten.broken,
        "last_ten_misread": totals.last_ten.misread,
    }


def tell_gate(totals: UploadTotals, now: datetime) -> None:
    """The gate's numbers for people; nothing where no gate ever answered."""
    if not (totals.passed or totals.refused or totals.debts or totals.lapsed):
        return
    passed, refused = sum(totals.passed.values()), sum(totals.refused.values())
    result(f"gate: {passed + refused:,} uploads answered today (UTC): {passed:,} passed, {refused:,} refused")
    for words, answers in (("passed ", totals.passed), ("refused", totals.refused)):
        for why, number in sorted(answers.items(), key=lambda item: -item[1]):
            result(f"    {number:>9,}  {words}  {why.words}")
    last = totals.last_ten
    if last.alarming:
        result(
            f"    {last.unreadable:>9,}  OF THE LAST {last.answers} could not be read: {last.broken} not decoded, {last.misread} not understood; "
            "does pict-rs speak otherwise than before?"
        )
    if totals.unsealed:
        result(f"    {totals.unsealed:>9,}  refused and NOT SEALED: the vault could not take them, pict-rs has deleted them")
    if totals.debts and totals.oldest_debt is not None:
        broken = f"; {totals.debts_broken:,} of them cannot be decoded here" if totals.debts_broken else ""
        result(
            f"    {totals.debts:>9,}  debts: passed and not scanned yet, the oldest for {age(totals.oldest_debt, now)}{broken}"
        )
    if totals.enveloped:
        result(f"    {totals.enveloped:>9,}  of them look like a form around the picture; `fediwarden vault envelopes`")
    for kind, number in totals.unopened.items():
        result(
            f"    {number:>9,}  of them: this engine cannot open {plain(kind)}; they stay debts until one can (`gate.broken` decides)"
        )
    for kind, number in totals.undecoded.items():
        result(
            f"    {number:>9,}  of them cannot be decoded (said to be {plain(kind)}): no picture or video that is known here; "
            "they stay debts (`gate.broken` decides)"
        )
    if totals.lapsed:
        result(f"    {totals.lapsed:>9,}  debts lapsed, ever: what was let through never turned up in pict-rs")


def watch_json(beat: "Beat") -> dict[str, object]:
    """What the last watch of a store said last, for programs."""
    return {
        "store": beat.store,
        "running": beat.running,
        "at": beat.at,
        "signal": beat.signal or None,
        "lag_seconds": beat.lag,
        "silent_seconds": beat.silent,
        "problem": beat.problem,
        "requests_last_hour": beat.requests,
        "swept": beat.swept,
        "waiting": beat.waiting,
        "looks_per_second": beat.rate,
        "blind": list(beat.blind),
    }


def tell_watch(beats: "Sequence[Beat]", stores: Iterable[str], now: datetime) -> None:
    """The same for people, and which of these stores nobody ever watched; nothing where that is all of them."""
    for beat in beats:
        if not beat.running:
            result(f"watch: {plain(beat.store)} NOT WATCHED for {age(beat.at, now)}; `fediwarden watch` goes on from there")
            continue
        words = [f"learns by {beat.signal}" if beat.signal else "has not answered yet"]
        if beat.lag is not None:
            words.append(f"newest looked at {beat.lag:,.0f} s after it came in")
        words.append(f"{beat.waiting:,} wait for their look")
        words.append(f"listed whole {age(beat.swept, now)} ago" if beat.swept else "never listed whole")
        words.append(f"{beat.requests:,} listing requests in the last hour")
        result(f"watch: {plain(beat.store)} {', '.join(words)}")
        if beat.problem:
            result(f"    no answer: {plain(beat.problem)}")
    for store in sorted(set(stores) - {beat.store for beat in beats}) if beats else ():
        result(f"watch: {plain(store)} NEVER WATCHED; a watch that runs learns of it by SIGHUP or a restart")
    running = [beat for beat in beats if beat.running]
    if running:
        result(f"    {max(beat.rate for beat in running):>9,.1f}  looks a second in the last minute")
    for line in sorted({line for beat in running for line in beat.blind}):
        result(f"    BLIND: {plain(line)}")


def doubt_json(doubt: Doubt) -> dict[str, object]:
    """A listing that is not believed, for programs."""
    return {
        "store": doubt.store,
        "listed": doubt.listed,
        "accepted": doubt.accepted,
        "missing": doubt.missing,
        "since": doubt.since,
    }


def tell_doubts(doubts: Iterable[Doubt], now: datetime) -> None:
    """The same for people."""
    for doubt in doubts:
        result(f"NOT BELIEVED for {age(doubt.since, now)}: {plain(doubt.words)}")
        result("    mend the store; or say with `fediwarden scan STORE --accept-gone` that they are gone")


def age(since: datetime, now: datetime) -> str:
    """How long ago, for people."""
    minutes = max(0.0, (now.astimezone(UTC) - since).total_seconds() / 60)
    return (
        f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.0f} h" if minutes < 48 * 60 else f"{minutes / 1440:.0f} days"
    )


def list_debts(app: App, engine: EngineVersion, *, json: bool) -> None:
    """Every debt that is open, oldest first."""
    for debt in app.ledger.uploads.debts(engine):
        if json:
            emit(_debt_json(debt))
        else:
            why = f"{debt.why.words}{'; looked at since, cannot be decoded' if debt.broken else ''}"
            result(f"{debt.at:%Y-%m-%d %H:%M:%S}  {size(debt.ref.size):>8}  {debt.sha256}  {plain(debt.ref.store)}  ({why})")


def _debt_json(debt: Debt) -> dict[str, object]:
    return {
        "debt": debt.id,
        "at": debt.at,
        "sha256": debt.sha256,
        "store": debt.ref.store,
        "key": debt.ref.key,
        "size": debt.ref.size,
        "why": debt.why.value,
        "broken": debt.broken,
    }


def facts_json(app: App, entry: Entry) -> dict[str, object]:
    """What is known of an object besides looks, decisions and deeds, for `explain --json`."""
    answers, traces, deeds = _about(app, entry.sha256)
    return {
        "names": [
            {"kind": name.kind.value, "name": name.text} for name in app.ledger.platforms.names_of(entry.ref.store, entry.ref.key)
        ],
        "answers": [
            {
                "at": answer.at,
                "face": answer.face,
                "passed": answer.passed,
                "why": answer.why.value,
                "debt": answer.debt,
                "sealed": answer.sealed,
                "original": answer.original,
                "problem": answer.problem,
            }
            for answer in answers
        ],
        "traces": [
            {"at": trace.at, "by": trace.actor, "reason": trace.reason, "counts": dict(trace.counts), "problem": trace.problem}
            for trace in traces
        ],
        "platform_deeds": [
            {
                "at": deed.at,
                "by": deed.actor,
                "platform": deed.platform,
                "act": deed.act,
                "target": deed.target,
                "state": deed.state.value,
                "problem": deed.problem,
            }
            for deed in deeds
        ],
        "words": [
            {"at": at, "by": said.by, "step": said.step.value, "because": said.because}
            for at, said in (app.ledger.said(entry.sha256) if entry.sha256 else ())
        ],
        "legacy": [
            {"tool": word.tool, "suspected": word.suspected, "at": word.at}
            for word in app.ledger.legacy.of(entry.ref.store, entry.ref.key)
        ],
    }


def tell_names(app: App, entry: Entry) -> None:
    """An object's other names, and what an earlier tool said of it."""
    names = app.ledger.platforms.names_of(entry.ref.store, entry.ref.key)
    for name in names[:SHOWN]:
        result(f"  {_named(name)}")
    if len(names) > SHOWN:
        result(f"           ... and {len(names) - SHOWN:,} more names")
    for word in app.ledger.legacy.of(entry.ref.store, entry.ref.key):
        said = "met it and never looked" if word.suspected is None else "suspected it" if word.suspected else "called it safe"
        result(f"  earlier  {plain(word.tool)} {said}{f', {plain(word.at)}' if word.at else ''} (history: it decides nothing)")


def _named(name: Name) -> str:
    return f"{NAMED[name.kind]:<8} {plain(name.text)}"


def tell_facts(app: App, entry: Entry) -> None:
    """What the gate answered about these bytes, who asked for a trace of them, and what was done on platforms."""
    answers, traces, deeds = _about(app, entry.sha256)
    for answer in answers:
        result(f"  {answer.at:%Y-%m-%d %H:%M:%S} gate: {_answered(answer)}")
    for trace in traces:
        counts = ", ".join(f"{number} {what}" for what, number in trace.counts.items() if number)
        problem = f"; NOT TAKEN: {plain(trace.problem)}" if trace.problem else f": {counts}" if counts else ""
        result(f"  {trace.at:%Y-%m-%d %H:%M:%S} trace: by {plain(trace.actor)}, “{plain(trace.reason)}”{problem}")
    for deed in deeds:
        problem = f": {plain(deed.problem)}" if deed.problem else ""
        result(
            f"  {deed.at:%Y-%m-%d %H:%M:%S} {plain(deed.platform)}: {plain(deed.act)} {plain(deed.target)}: "
            f"{deed.state.value}, by {plain(deed.actor)}{problem}"
        )
    for at, said in app.ledger.said(entry.sha256) if entry.sha256 else ():
        result(f"  {at:%Y-%m-%d %H:%M:%S} a person: {said.step.value}, by {plain(said.by)}, “{plain(said.because)}”")
    if entry.ref.store == GATE and entry.sha256:
        result("  (an upload: it lies in no store, and there is nothing to restore. `fediwarden clear` lets the same bytes pass)")


def _answered(answer: Answer) -> str:
    words = f"{'passed' if answer.passed else 'refused'}, {answer.why.words}"
    if answer.debt:
        words += "; a debt"
    if answer.sealed is not None:
        words += "; sealed" if answer.sealed else "; NOT SEALED"
    if answer.original:
        words += f"; uploaded as {answer.original[:12]}"
    return words + (f": {plain(answer.problem)}" if answer.problem else "")


def _about(app: App, sha256: Sha256 | None) -> tuple[list[Answer], list[TraceRecord], list[PlatformDeed]]:
    if sha256 is None:
        return [], [], []
    return app.ledger.uploads.answers(sha256), app.ledger.platforms.traces(sha256), app.ledger.platforms.deeds(sha256)


def means(app: App, text: str, store: str = "") -> list[Entry]:
    """The objects that a person may mean by a key, a SHA-256 or another name; keys first."""
    name = app.store(store).name if store and store != GATE else GATE if store else None
    found = list(app.ledger.entries(store=name, key=text))
    if found:
        return found
    platforms = app.ledger.platforms
    places = platforms.holding(Sha256(text.lower())) if is_sha256(text) else []
    places = places or platforms.named(text)
    entries = [app.ledger.entry(where, key) for where, key in places if name is None or where == name]
    return [entry for entry in entries if entry is not None]


def is_sha256(text: str) -> bool:
    """Whether it has the form of one."""
    return len(text) == 64 and all(char in "0123456789abcdef" for char in text.lower())
