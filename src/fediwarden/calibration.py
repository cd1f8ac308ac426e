"""What scores mean on the operator's own media: operating points for a flag budget, with intervals; opens no picture, shows none.

A sample belongs to one version of an analyser. It holds the findings of a random sample of objects, without names, hashes or
pixels, so that another budget needs no second look. An operating point is a quantile: the score that only a share `tail` of
the sample reaches. One tail serves all groups and words, so that a budget is one number to choose.
"""

import fcntl
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from sys import intern
from typing import Any

from fediwarden.errors import CannotWrite, Misconfigured
from fediwarden.model import Finding, OperatingPoints

BASE_RATE = 4.29e-5  # of all media: files that people confirmed at a service for the fediverse (IFTAS CCS post mortem, 2025)
LEAST = 200  # looks below which nothing is calibrated: a share of them says nothing about rare things
MOST = 100_000  # objects of a sample; its findings lie in memory
MOST_TAIL = 0.05  # no point lies lower, however few flags that gives: what a twentieth of all media reach is not remarkable
CONFIDENCE = 1.959964  # standard deviations for 95 % of a normal distribution, both sides
_FORMAT = 1
_LARGEST_POINTS = 1 << 20  # bytes of a file
_LARGEST_SAMPLE = 1 << 29
_VERSION = re.compile(r"[0-9a-z]{1,64}")
_BUDGET = re.compile(r"\s*(\d{1,12}(?:\.\d{1,9})?)\s*(?:/|per\b|a\b|in\b)\s*(week|day|\d[\d,_ ]{0,15})\s*", re.ASCII)
_POINTS, _SAMPLE = ".json", ".sample.json"
_WHOSE, _COUNTS = ("version", "model", "precision", "others", "at"), ("listed", "recent", "weeks", "not_seen", "same")
_FACTS = (*_WHOSE, *_COUNTS, "stores", "groups")  # of a sample


@dataclass(frozen=True, slots=True)
class FlagBudget:
    """How many flags are wanted at most: so many of so many objects, or in a week."""

    count: float
    of: int = 0  # so many objects; 0: what comes in a week

    @classmethod
    def parse(cls, text: str) -> "FlagBudget":
        """ "10/week", "2 a day", "1/10000", "1 in 10,000". Raises: Misconfigured."""
        found = _BUDGET.fullmatch(text.lower())
        count, unit = (float(found[1]), found[2]) if found else (0.0, "")
        if count > 0 and unit in ("week", "day"):
            return cls(count * (7 if unit == "day" else 1))
        of = int(re.sub(r"\D", "", unit) or 0)
        if 0 < count <= of:
            return cls(count, of)
        raise Misconfigured(f"{text[:60]!r} is no budget", hint='say "10/week", "2/day" or "1/10000" (of all objects)')

    @property
    def per_week(self) -> bool:
        """Whether it takes a number of arrivals to make a share of it."""
        return not self.of

    def share(self, per_week: float) -> float:
        """The share of objects that may be flagged, when so many objects come in a week."""
        return self.count / self.of if self.of else min(1.0, self.count / per_week)

    def __str__(self) -> str:
        count = f"{self.count:.9f}".rstrip("0").rstrip(".")
        return f"{count} in {self.of:,}" if self.of else f"{count} a week"


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimated share with the bounds in which the true one lies, 19 times in 20."""

    share: float
    low: float
    high: float

    def of(self, count: float) -> "Interval":
        """The same for so many objects, as numbers of them."""
        return Interval(self.share * count, self.low * count, self.high * count)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is kept of one look: all that a policy asks for, and nothing that tells one object from another."""

    findings: tuple[Finding, ...]  # without frames and sources
    notes: tuple[str, ...] = ()  # what they are about
    unopened: tuple[str, ...] = ()  # why
    format: str = ""


@dataclass(frozen=True, slots=True)
class Sample:
    """What one version of an analyser, and the others beside it, found in objects drawn at random."""

    version: str  # of the analyser that is calibrated
    model: str
    precision: str
    others: str  # digest of all that looked
    at: str  # when, ISO
    stores: tuple[str, ...]
    listed: int  # objects in these stores
    recent: int  # how many of them came in the `weeks` before
    weeks: float  # 0 where the stores give no dates
    not_seen: int  # objects of the sample that could not be looked at
    same: int  # and those that held bytes met before
    groups: tuple[str, ...]
    looks: tuple[Seen, ...]  # in no order that says anything

    @property
    def drawn(self) -> int:
        """Objects of the sample, seen or not."""
        return len(self.looks) + self.not_seen + self.same

    @property
    def per_week(self) -> float:
        """How many objects came in a week; 0 where nobody knows."""
        return self.recent / self.weeks if self.weeks else 0.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """The operating points that were chosen on a sample."""

    points: OperatingPoints
    model: str
    precision: str
    at: str  # when the sample was looked at, ISO
    seen: int
    budget: str
    mode: str  # that flags were counted for
    rules: str  # digest of the policy's marks and rules that they were counted for


@dataclass(frozen=True, slots=True)
class ChosenPoints:
    """What a budget made of a sample."""

    points: OperatingPoints
    hits: int  # looks of the sample that would be flagged
    allowed: int  # and how many the budget lets be
    of: int
    bound: bool  # whether the budget set the points; else they are as low as any may be

    @property
    def flags(self) -> Interval:
        """The share of all objects that will be flagged.

        Where the budget set the points they lie just above the next look that would be flagged, and that is no accident: then
        hits / of is too low an estimate. What lies beyond the (k + 1)-th of n values is (k + 1) / (n + 1) on average, for any
        distribution, and Wilson's interval for k of n is as good as that of this number (both are held to it by tests).
        """
        found = interval(self.hits, self.of)
        return replace(found, share=(self.hits + 1) / (self.of + 1)) if self.bound and self.hits <= self.allowed else found


def interval(hits: int, of: int) -> Interval:
    """The share hits / of with its Wilson score interval at 95 %.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927); recommended for
    small shares by L. D. Brown, T. T. Cai and A. DasGupta, "Interval estimation for a binomial proportion", 2001.
    Nothing seen in n tries still leaves up to 3.8 / n. Raises: ValueError for of < 1 or hits outside 0 to of.
    """
    if not 0 <= hits <= of or of < 1:
        raise ValueError(f"{hits} of {of}")
    share, z2 = hits / of, CONFIDENCE**2
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = CONFIDENCE / (1 + z2 / of) * math.sqrt(share * (1 - share) / of + z2 / (4 * of * of))
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    return Interval(share, low if hits else 0.0, high if hits < of else 1.0)


def operating_points(version: str, groups: Sequence[str], looks: Sequence[Sequence[Finding]], tail: float) -> OperatingPoints:
    """The score of each group, and of each of its words, that at most the share `tail` of `looks` reach.

    With a tail of 0 the point lies just above the largest score of the sample. Looks without a finding of a group (where
    nothing could be seen) count as below every point. Raises: ValueError for no looks.
    """
    return _Ordered.of(version, groups, looks).at(math.floor(tail * len(looks) + 1e-9))


@dataclass(frozen=True, slots=True)
class _Ordered:
    """The scores of a sample, the highest first, so that many tails can be tried."""

    version: str
    looks: int
    scores: Mapping[str, list[float]]
    words: Mapping[str, Mapping[str, list[float]]]

    @classmethod
    def of(cls, version: str, groups: Sequence[str], looks: Sequence[Sequence[Finding]]) -> "_Ordered":
        if not looks:
            raise ValueError("no looks to calibrate on")
        scores: dict[str, list[float]] = {group: [] for group in groups}
        words: dict[str, dict[str, list[float]]] = {group: {} for group in groups}
        for look in looks:
            for found in look:
                if found.concept in scores and found.version == version:
                    scores[found.concept].append(found.score)
                    for word, value in found.measures.items():
                        words[found.concept].setdefault(word, []).append(value)
        for values in (*scores.values(), *(values for found in words.values() for values in found.values())):
            values.sort(reverse=True)
        return cls(version, len(looks), scores, words)

    def at(self, allowed: int) -> OperatingPoints:
        """The points that at most `allowed` looks reach."""
        return OperatingPoints(
            self.version,
            allowed / self.looks,
            {group: _point(values, allowed) for group, values in self.scores.items() if values},
            {group: {word: _point(values, allowed) for word, values in found.items()} for group, found in self.words.items()},
        )


def _point(ordered: Sequence[float], allowed: int) -> float:
    """The lowest score that at most `allowed` of the values reach."""
    if allowed >= len(ordered):
        return ordered[-1]
    return math.nextafter(ordered[allowed], math.inf)  # this one, and its equals, must stay below


def lowest_points(sample: Sample) -> OperatingPoints:
    """The points with the largest tail that may be chosen."""
    return _ordered(sample).at(_most(sample))


def choose(sample: Sample, budget: FlagBudget, per_week: float, flags: Callable[[OperatingPoints], int]) -> ChosenPoints:
    """The largest tail whose flags, expected on average, keep to the budget; at least none of the sample's looks is let be.

    `flags` counts how many looks of the sample a policy held to these points would flag. Where it falls as the tail grows
    (a policy may pass what reaches a point) another tail might be larger, but the budget is kept to all the same. Where
    even a tail of 0 is over the budget (other rules flag that many by themselves) the tail is 0.
    """
    ordered = _ordered(sample)
    allowed = max(0, math.floor(budget.share(per_week) * (len(sample.looks) + 1) + 1e-9) - 1)
    low, high = 0, _most(sample)  # numbers of looks beyond a point
    while low < high:
        middle = (low + high + 1) // 2
        if flags(ordered.at(middle)) <= allowed:
            low = middle
        else:
            high = middle - 1
    points = ordered.at(low)
    return ChosenPoints(points, flags(points), allowed, len(sample.looks), low < _most(sample))


def needed(budget: FlagBudget, per_week: float) -> int:
    """How many looks it takes before a budget can be kept to on average; with fewer, none is flagged and more may come."""
    share = budget.share(per_week)
    return max(1, math.ceil(1 / share - 1 - 1e-9))


def _ordered(sample: Sample) -> _Ordered:
    return _Ordered.of(sample.version, sample.groups, [look.findings for look in sample.looks])


def _most(sample: Sample) -> int:
    return math.floor(MOST_TAIL * len(sample.looks))


def anonymous(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings of a look without where in the object they were made."""
    return tuple(replace(found, frame=0, source="") for found in findings)


# -- files ----------------------------------------------------------------------------------------------------------------
#
# Two for each version: VERSION.json with the points, which every command reads, and VERSION.sample.json, which only
# `calibrate` does. Both are as secret as the policy that holds to them: who knows the points knows how far to stay below.


def save(folder: Path, sample: Sample, chosen: OperatingPoints, budget: str, mode: str, rules: str) -> None:
    """Write sample and points, each whole or not at all, readable by their owner only; for `mode` and `rules` see `Calibration`.

    Raises: CannotWrite.
    """
    kept = {
        "format": _FORMAT,
        **{name: getattr(sample, name) for name in _FACTS},
        "looks": [
            [
                [[f.concept, f.score, f.analyser, f.version, dict(f.measures)] for f in look.findings],
                look.notes,
                look.unopened,
                look.format,
            ]
            for look in sample.looks
        ],
    }
    points = {
        "format": _FORMAT,
        "version": chosen.version,
        "model": sample.model,
        "precision": sample.precision,
        "at": sample.at,
        "seen": len(sample.looks),
        "budget": budget,
        "mode": mode,
        "rules": rules,
        "tail": chosen.tail,
        "scores": dict(chosen.scores),
        "measures": {group: dict(words) for group, words in chosen.measures.items()},
    }
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(folder):
            _replace(folder / f"{sample.version}{_SAMPLE}", kept)
            _replace(folder / f"{sample.version}{_POINTS}", points)
    except OSError as error:
        raise CannotWrite(
            f"cannot write the calibration to {folder}: {error.strerror}", hint="check the folder's owner and its disk"
        ) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One at a time: the files of two calibrations are not mixed. The kernel lets go whatever happens to us."""
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _replace(path: Path, facts: Mapping[str, object]) -> None:
    beside = path.with_name(f".{path.name}")
    beside.unlink(missing_ok=True)  # what a killed process left; nobody else is here
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(handle, "w", encoding="utf-8") as out:  # noqa: PTH123 - a file descriptor is no path
            json.dump(facts, out, allow_nan=False)
            out.flush()
            os.fsync(out.fileno())
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def load(folder: Path, version: str) -> Sample | None:
    """The sample of that version, if there is one. Raises: Misconfigured where its file cannot be used."""
    path = folder / f"{version}{_SAMPLE}"
    try:
        if not path.is_file():
            return None
    except OSError as error:
        raise _unusable(path, error) from error
    with _reading(path):
        facts = _Facts(_read(path, _LARGEST_SAMPLE, version))
        moment(facts.text("at"))
        looks = tuple(_seen(row) for row in facts.rows("looks"))
        sample = Sample(
            version=version,
            model=facts.text("model"),
            precision=facts.text("precision"),
            others=facts.text("others"),
            at=facts.text("at"),
            stores=facts.texts("stores"),
            listed=facts.count("listed"),
            recent=facts.count("recent"),
            weeks=facts.number("weeks"),
            not_seen=facts.count("not_seen"),
            same=facts.count("same"),
            groups=facts.texts("groups"),
            looks=looks,
        )
        if len(looks) < LEAST or sample.weeks < 0:
            raise ValueError(f"it holds {len(looks)} looks")
    return sample


def moment(at: str) -> datetime:
    """When that was, aware. Raises: ValueError."""
    found = datetime.fromisoformat(at)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def chosen(folder: Path) -> tuple[Calibration, ...]:
    """Every calibration there is, by version. Raises: Misconfigured for one that cannot be used."""
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except FileNotFoundError:
        return ()
    except OSError as error:  # not to be taken for "none"
        raise _unusable(folder, error) from error
    return tuple(
        _calibration(folder / name)
        for name in names
        if name.endswith(_POINTS) and not name.endswith(_SAMPLE) and not name.startswith(".")
    )


def points(folder: Path) -> tuple[OperatingPoints, ...]:
    """The operating points of every version that was calibrated, by version. Raises: Misconfigured as `chosen`."""
    return tuple(one.points for one in chosen(folder))


def _calibration(path: Path) -> Calibration:
    with _reading(path):
        version = path.name.removesuffix(_POINTS)
        facts = _Facts(_read(path, _LARGEST_POINTS, version))
        tail = facts.number("tail")
        if not 0 <= tail <= MOST_TAIL:
            raise ValueError(f"its tail is {tail:g}")
        scores = _numbers(facts.table("scores"))
        measures = {group: _numbers(words) for group, words in facts.table("measures").items()}
        return Calibration(
            OperatingPoints(version, tail, scores, measures),
            facts.text("model"),
            facts.text("precision"),
            facts.text("at"),
            facts.count("seen"),
            facts.text("budget"),
            facts.text("mode"),
            facts.text("rules"),
        )


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a file says, held to the kinds it must have. Each method raises KeyError, TypeError or ValueError."""

    given: Mapping[str, Any] = field(repr=False)

    def text(self, name: str) -> str:
        return _text(self.given[name])

    def texts(self, name: str) -> tuple[str, ...]:
        return tuple(_text(value) for value in self.rows(name))

    def number(self, name: str) -> float:
        return _number(self.given[name])

    def count(self, name: str) -> int:
        value = self.given[name]
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 53:
            raise ValueError(f"{name} is no count")
        return value

    def rows(self, name: str) -> list[Any]:
        return _rows(self.given[name])

    def table(self, name: str) -> dict[str, Any]:
        return _table(self.given[name])


def _seen(row: object) -> Seen:
    findings, notes, unopened, form = _rows(row)
    return Seen(
        tuple(_finding(one) for one in _rows(findings)),
        tuple(_text(what) for what in _rows(notes)),
        tuple(_text(why) for why in _rows(unopened)),
        _text(form),
    )


def _finding(row: object) -> Finding:
    concept, score, analyser, version, measures = _rows(row)
    names = [intern(_text(name)) for name in (concept, analyser, version)]  # the same few, a hundred thousand times
    return Finding(names[0], _number(score), names[1], names[2], measures=_numbers(measures))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is expected")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("a number is expected")
    return float(value)


def _numbers(value: object) -> dict[str, float]:
    return {name: _number(number) for name, number in _table(value).items()}


def _rows(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("a list is expected")
    return value


def _table(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("a table is expected")
    return value


def _read(path: Path, largest: int, version: str) -> dict[str, Any]:
    """The file's table, which is of this format and version. Raises: OSError, TypeError, ValueError and what JSON may."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not make us wait
    with open(handle, "rb") as source:  # noqa: PTH123 - a file descriptor is no path
        data = source.read(largest + 1)
    if len(data) > largest:
        raise ValueError("it is too large")
    facts = _table(json.loads(data))
    if facts.get("format") != _FORMAT:
        raise ValueError("written by another version of this program")
    if facts.get("version") != version or not _VERSION.fullmatch(version):
        raise ValueError("it is about another version than its name says")
    return facts


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever is in a file, one line comes of it."""
    try:
        yield
    except (OSError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: Exception) -> Misconfigured:
    said = error.strerror if isinstance(error, OSError) else f"it lacks {error}" if isinstance(error, KeyError) else str(error)
    return Misconfigured(
        f"the calibration {path} cannot be used: {str(said)[:200]}",
        hint="remove it and run `fediwarden calibrate`; without it, what CLIP finds informs and never decides",
    )
