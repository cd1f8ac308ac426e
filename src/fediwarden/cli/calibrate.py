"""`calibrate`: what a flag budget means on the operator's own media, in plain words; shows no object and no score, acts on nothing."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256

import typer

from fediwarden import calibration
from fediwarden.analysers.clip import Clip
from fediwarden.analysers.flat import Flat
from fediwarden.analysers.interface import Analyser
from fediwarden.app import App
from fediwarden.calibration import BASE_RATE, LEAST, MOST, FlagBudget, Interval, Sample, interval
from fediwarden.cli.common import JSON, Run, build, recorded
from fediwarden.cli.output import Progress, duration, emit, plain, result, row, say, show, table
from fediwarden.errors import Exit, FediwardenError, Misconfigured
from fediwarden.model import OperatingPoints, Step
from fediwarden.pipeline.calibrating import Judged, Sampling, draw, why_again
from fediwarden.pipeline.tally import Tally

BUDGET = "10/week"
OLD = timedelta(days=180)  # a stored sample of that age is worth a remark


def register(app: typer.Typer) -> None:
    """Add this group's commands."""
    app.command(short_help="Set operating points for CLIP by a flag budget, on your media.")(calibrate)


class Interrupted(FediwardenError):
    """Ctrl-C: half a sample is no sample."""

    exit = Exit.INTERRUPTED


def calibrate(
    stores: list[str] = typer.Argument(None, metavar="[STORE]...", help="As for scan. Default: every configured store."),
    budget: str = typer.Option(
        "",
        "--budget",
        help='How many suspected objects are wanted at most: "10/week", "1/10000". Default: as last time, or 10/week.',
    ),
    sample: int = typer.Option(2000, "--sample", min=LEAST, max=MOST, help="Objects to look at, drawn at random."),
    per_week: float = typer.Option(
        0, "--per-week", min=0, metavar="N", help="Objects that come in a week, where their dates do not tell."
    ),
    again: bool = typer.Option(False, "--again", help="Look at a new sample, though one is stored."),
    json: bool = JSON,
) -> int:
    """Set the operating points of CLIP's scores that keep to a flag budget, on a random sample of your own media.

    Without a calibration, what CLIP finds informs and never decides. The sample is looked at once; another budget or
    policy takes no second look. Nothing is shown, nothing is decided and nothing in any store is changed.
    `fediwarden rejudge` decides again with the new points.
    """
    app = build()
    try:
        report = _calibrate(app, stores or [], budget, sample, per_week, again=again)
    except KeyboardInterrupt as error:
        app.stop.set()
        raise Interrupted("interrupted; no calibration was stored, and what was in force stays in force") from error
    if json:
        emit(_report_json(report))
    else:
        _tell(report)
    return Exit.OK


def _calibrate(app: App, stores: list[str], budget: str, size: int, per_week: float, *, again: bool) -> "_Report":
    clip, wanted = _clip(app), _budget(app, budget)
    names = [settings.name for settings in app.targets(stores)]
    others, analysers = _others(app, clip)
    with recorded(app, "calibrate", {"stores": " ".join(names), "budget": str(wanted), "sample": str(size)}) as run:
        stored = calibration.load(app.configuration.calibration, clip.version)
        why = "it was asked for" if again else why_again(stored, others, names, size) if stored else ""
        if stored is None or why:
            if stored is not None:
                say(f"looking at a new sample: {why}")
            sample = _look(app, clip, analysers, others, stores, size, wanted, per_week)
        else:
            say(f"using the sample of {_day(stored.at)} again; nothing is looked at (--again looks at a new one)")
            _arrivals(wanted, per_week or stored.per_week, dated=stored.weeks > 0)
            sample = stored
        report = _choose(app, clip, sample, wanted, per_week or sample.per_week, looked=sample is not stored)
        calibration.save(app.configuration.calibration, sample, report.points, str(wanted), app.mode, app.rules)
        _count(run, report)
    return report


def _clip(app: App) -> Clip:
    if app.policy.concepts is None:
        raise Misconfigured(
            f"the policy {app.policy.name} has no [concepts], which is what CLIP compares pictures with",
            hint="copy the section from the default policy (docs/policy.md)",
        )
    if app.clip is None:
        raise Misconfigured(
            "there is no CLIP to calibrate: "
            + ("none is built here" if not app.settings.analysis.mode else 'the mode is "fast"'),
            hint="`fediwarden models pull NAME` and `fediwarden models build NAME` make one (`fediwarden models list`); "
            "[analysis] mode must not be fast",
        )
    if not app.policy.calibrated:
        raise Misconfigured(
            f"no mark of the policy {app.policy.name} says calibrated = true, so that no calibration could change a decision",
            hint="the default policy shows such marks (docs/policy.md)",
        )
    return app.clip


def _budget(app: App, given: str) -> FlagBudget:
    """The budget that is asked for, or the one of last time."""
    if given:
        return FlagBudget.parse(given)
    known = calibration.chosen(app.configuration.calibration)
    before = next((one for one in known if app.clip is not None and one.points.version == app.clip.version), None)
    return FlagBudget.parse(before.budget if before else BUDGET)


def _others(app: App, clip: Clip) -> tuple[str, list[Analyser]]:
    """Who looks at the sample, and a digest of them: everyone whom some mode asks, for the sample is to outlive a change of mode."""
    analysers: list[Analyser] = [*app.embedded, Flat(), clip]
    parts = [app.cage.version, *(f"{one.name}={one.version}" for one in analysers if one.version)]
    return sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16], analysers


def _arrivals(wanted: FlagBudget, per_week: float, *, dated: bool) -> None:
    """Refuse what cannot be reckoned, before anything is looked at. Raises: Misconfigured."""
    if wanted.per_week and per_week <= 0:
        raise Misconfigured(
            "nobody knows how many objects come in a week: "
            + ("none of those listed is younger than four weeks" if dated else "the store does not date them"),
            hint='say it with --per-week N, or give the budget as a share: --budget "1/10000"',
        )


def _look(
    app: App,
    clip: Clip,
    analysers: list[Analyser],
    others: str,
    stores: list[str],
    size: int,
    wanted: FlagBudget,
    per_week: float,
) -> Sample:
    """A new sample. Raises: Misconfigured where too little can be seen, Unreached."""
    with app.readers(stores) as readers, app.looking():
        with _Drawing() as drawing:
            drawn = draw(readers, size, app.clock(), random.SystemRandom(), drawing, app.stop)
        if drawn.listed < LEAST:
            raise Misconfigured(
                f"there are {drawn.listed:,} objects, and a share of fewer than {LEAST} says nothing about rare things",
                hint="calibrate on more stores together, or later; until then CLIP informs and never decides",
            )
        _arrivals(wanted, per_week or drawn.recent, dated=drawn.weeks > 0)
        sampling = Sampling(app.looker_of(analysers), app.pace, app.stop)
        with _Looking() as looking:
            seen = sampling.run(drawn, looking)
        names = tuple(reader.name for reader in readers)
    tally = sampling.tally
    if len(seen) < LEAST:
        raise Misconfigured(
            f"only {len(seen):,} of {len(drawn.objects):,} objects could be seen, and fewer than {LEAST} say nothing about rare "
            f"things ({tally.broken:,} broken, {tally.gone:,} gone, {tally.unreached:,} unreached, {tally.skipped:,} the same bytes)",
            hint="`fediwarden scan` and `fediwarden list --not-scanned` say why each was not seen; a larger --sample may do",
        )
    return Sample(
        version=clip.version,
        model=clip.model,
        precision=clip.precision,
        others=others,
        at=app.clock().isoformat(),
        stores=names,
        listed=drawn.listed,
        recent=drawn.recent,
        weeks=drawn.weeks,
        not_seen=tally.broken + tally.gone + tally.unreached,
        same=tally.skipped,
        groups=tuple(group.name for group in clip.concepts.groups),
        looks=tuple(seen),
    )


@dataclass(frozen=True, slots=True)
class _Report:
    """All that is told."""

    sample: Sample
    budget: FlagBudget
    per_week: float  # 0 where nobody knows
    points: OperatingPoints
    flags: Interval
    hits: int  # suspected in the sample
    allowed: int
    reviews: int  # to review in the sample
    alone: int  # suspected in the sample without any operating point
    before: int | None  # suspected in this sample by the points until now; None where there were none, or no new look
    bound: bool
    needed: int
    mode: str
    device: str
    looked: bool
    first: bool
    age: timedelta

    @property
    def review(self) -> Interval:
        return interval(self.reviews, len(self.sample.looks))

    @property
    def true_a_week(self) -> float:
        return BASE_RATE * self.per_week

    @property
    def at_best(self) -> float | None:
        """The share of true finds among the suspected at the base rate, if no true one is missed."""
        return min(1.0, BASE_RATE / self.flags.share) if self.flags.share else None


def _choose(app: App, clip: Clip, sample: Sample, wanted: FlagBudget, per_week: float, *, looked: bool) -> _Report:
    judged = Judged(app.policy, sample, everything=app.mode == "thorough", drawn=app.settings.analysis.sample)
    choice = calibration.choose(sample, wanted, per_week, judged.flags)
    old = next((one for one in calibration.points(app.configuration.calibration) if one.version == clip.version), None)
    return _Report(
        sample=sample,
        budget=wanted,
        per_week=per_week,
        points=choice.points,
        flags=choice.flags,
        hits=choice.hits,
        allowed=choice.allowed,
        reviews=judged.steps(choice.points)[Step.REVIEW],
        alone=judged.alone,
        before=judged.flags(old) if old is not None and looked else None,
        bound=choice.bound,
        needed=calibration.needed(wanted, per_week),
        mode=app.mode,
        device=clip.device,
        looked=looked,
        first=old is None,
        age=app.clock() - calibration.moment(sample.at),
    )


def _count(run: Run, report: _Report) -> None:
    sample = report.sample
    run.counts.update(
        {"looked": len(sample.looks) if report.looked else 0, "not_seen": sample.not_seen if report.looked else 0}
        | {"flagged": report.hits, "review": report.reviews}
    )


# -- words ----------------------------------------------------------------------------------------------------------------


def _tell(report: _Report) -> None:
    sample, seen = report.sample, len(report.sample.looks)
    result(
        f"{seen:,} pictures seen, of {sample.drawn:,} objects drawn at random from {sample.listed:,} "
        f"({sample.not_seen:,} not seen: broken, gone or unreached; {sample.same:,} the same bytes as another)"
    )
    result(f"budget: {report.budget}{_of_arrivals(report)}")
    shown = table("", *([">a week"] if report.per_week else []), ">of all listed now", ">in the sample")
    for name, found, count in (("suspected", report.flags, report.hits), ("to review", report.review, report.reviews)):
        numbers = [found.of(report.per_week)] if report.per_week else []
        row(shown, name, *(_words(one) for one in (*numbers, found.of(sample.listed))), f"{count:,} of {seen:,}")
    show(shown)
    result("in brackets: where the true number lies, 19 times in 20, if what comes is like what was drawn")
    for line in _remarks(report):
        result(line)
    share = 100 * (1 - report.points.tail)
    result(f"operating points: for each group and word of [concepts], beyond what {share:.4g} % of your media reach")
    _tell_base_rate(report)
    result(
        f"all this belongs to {plain(sample.model)} in {sample.precision} with these concepts (version {sample.version}), to the mode "
        f"{report.mode}, and to this policy. Another mode or policy: calibrate again, without a look. Another model: with one"
    )
    if report.first:
        result("until now CLIP informed and never decided; from now on it counts wherever the policy says calibrated = true")
    result("next: `fediwarden rejudge` decides again what was looked at, without opening one picture")


def _of_arrivals(report: _Report) -> str:
    if not report.per_week:
        return ""
    if report.per_week != report.sample.per_week:
        return f", of {report.per_week:,.0f} objects that come in a week by your word"
    return (
        f", of about {report.per_week:,.0f} objects that come in a week: {report.sample.recent:,} of those listed are younger than "
        f"{report.sample.weeks:.2g} weeks (--per-week N where that is wrong)"
    )


def _remarks(report: _Report) -> list[str]:
    seen, said = len(report.sample.looks), []
    if report.alone > report.allowed:
        said.append(
            f"OVER THE BUDGET: rules that ask for no operating point suspect {report.alone:,} of {seen:,} by themselves. CLIP's points "
            "were set beyond the whole sample, so that it adds next to nothing. A larger budget, or other numbers in the policy?"
        )
    elif report.needed > seen:
        most = 3.8 / seen * report.per_week if report.budget.per_week else 3.8 / seen * report.budget.of
        of = "a week" if report.budget.per_week else f"in {report.budget.of:,}"
        said.append(
            f"THE SAMPLE IS SMALL for this budget: none flagged in {seen:,} still allows up to {_short(most)} {of}. "
            f"--sample {_rounded_up(report.needed):,} would be enough"
        )
    elif not report.bound:
        said.append(
            f"the budget is not used up: no point is set lower than what {100 * calibration.MOST_TAIL:.4g} % of your media reach, "
            "however few are then suspected"
        )
    if report.before is not None:
        said.append(f"the points in force until now would suspect {report.before:,} of this sample instead of {report.hits:,}")
        if report.before > report.hits and interval(report.before, seen).low > report.flags.high:
            said.append(
                "THE POINTS ROSE: your media changed, or somebody brought many pictures that raise them (docs/calibration.md)"
            )
    if report.age > OLD:
        said.append(f"the sample is {duration(report.age.total_seconds())} old; --again looks at a new one")
    return said


def _tell_base_rate(report: _Report) -> None:
    if report.at_best is None:
        return
    best = f"at the very best 1 in {max(1, round(1 / report.at_best)):,} suspected objects is what this program is for"
    week = f": {_short(report.true_a_week)} of a week's objects" if report.per_week else ""
    result(
        f"a service for the fediverse found {BASE_RATE * 1e5:.2f} in 100,000 (IFTAS, 2025){week}. If that holds for you and none is "
        f"missed, {best}; the others are false alarms. A flag is a lead, not a fact"
    )


def _words(number: Interval) -> str:
    return f"{_short(number.share)} ({_short(number.low)} to {_short(number.high)})"


def _short(number: float) -> str:
    """Two digits of what is small, whole numbers of what is not: more would claim more than is known."""
    if number >= 10 or number == 0:
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 1 else f"{number:.2g}"


def _rounded_up(number: int) -> int:
    step = int(10 ** max(0, len(str(number)) - 2))
    return -(-number // step) * step


def _day(at: str) -> str:
    return f"{calibration.moment(at):%Y-%m-%d}"


def _interval_json(number: Interval) -> list[float]:
    return [float(f"{value:.6g}") for value in (number.share, number.low, number.high)]


def _outcome_json(share: Interval, count: int, report: _Report) -> Mapping[str, object]:
    return {
        "in_sample": count,
        "share": _interval_json(share),
        "a_week": _interval_json(share.of(report.per_week)) if report.per_week else None,
        "of_listed": _interval_json(share.of(report.sample.listed)),
    }


def _report_json(report: _Report) -> Mapping[str, object]:
    sample = report.sample
    return {
        "model": sample.model,
        "precision": sample.precision,
        "version": sample.version,
        "device": report.device,
        "mode": report.mode,
        "at": sample.at,
        "looked": report.looked,
        "stores": list(sample.stores),
        "listed": sample.listed,
        "drawn": sample.drawn,
        "seen": len(sample.looks),
        "not_seen": sample.not_seen,
        "same": sample.same,
        "recent": sample.recent if sample.weeks else None,
        "per_week": report.per_week or None,
        "budget": str(report.budget),
        "allowed": report.allowed,
        "needed": report.needed,
        "bound": report.bound,
        "tail": report.points.tail,
        "suspected": _outcome_json(report.flags, report.hits, report),
        "review": _outcome_json(report.review, report.reviews, report),
        "alone": report.alone,
        "before": report.before,
        "base_rate": BASE_RATE,
        "true_a_week": float(f"{report.true_a_week:.6g}") if report.per_week else None,
        "at_best": report.at_best,
    }


# -- progress -------------------------------------------------------------------------------------------------------------


class _Drawing(Progress):
    def _line(self, tally: Tally, seconds: float) -> str:
        return f"listed {tally.listed:,} so far | {tally.listed / seconds if seconds > 0 else 0:,.0f}/s"


class _Looking(Progress):
    def _line(self, tally: Tally, seconds: float) -> str:
        rate = tally.done / seconds if seconds > 0 else 0.0
        left = f"{duration((tally.expected - tally.done) / rate)} left" if rate > 0 else "starting"
        missed = tally.broken + tally.gone + tally.unreached
        return f"looked at {tally.done:,} of {tally.expected:,} | {rate:.1f}/s | {left} | {missed:,} not seen"
