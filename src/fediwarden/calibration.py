"""What scores mean on the operator's own media: operating points for a flag budget, with intervals; opens no picture, shows none.

A calibration belongs to one version of an analyser. It holds the findings of a random sample of objects, without names,
hashes or pixels, so that another budget needs no second look. An operating point is a quantile: the score that only a share
`tail` of the sample reaches. One tail serves all groups and words, so that a budget is one number to choose.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from fediwarden.errors import CannotWrite, Misconfigured
from fediwarden.model import Finding, OperatingPoints

BASE_RATE = 4.29e-5  # of all media: matches against known material at a service for the fediverse (IFTAS CCS post mortem, 2025)
LEAST = 200  # looks below which nothing is calibrated: a share of them says nothing about rare things
MOST_TAIL = 0.05  # no point lies lower, however few flags that gives: what a twentieth of all media reach is not remarkable
CONFIDENCE = 1.959964  # standard deviations for 95 % of a normal distribution, both sides
_FORMAT = 1
_LARGEST = 1 << 28  # bytes of a calibration file
_FACTS = ("version", "model", "precision", "at", "stores", "listed", "recent", "not_seen", "groups", "tail", "budget")
_BUDGET = re.compile(r"\s*(?P<count>\d+(?:\.\d+)?)\s*(?:/|per|a|in)\s*(?P<of>week|day|[\d,_ ]+)\s*")


@dataclass(frozen=True, slots=True)
class Budget:
    """How many flags are wanted at most: of each object, or in a week."""

    count: float
    per_week: bool  # else it is a share of objects

    @classmethod
    def parse(cls, text: str) -> "Budget":
        """ "10/week", "2 a day", "1/10000", "1 in 10,000". Raises: Misconfigured."""
        found = _BUDGET.fullmatch(text.lower())
        count = float(found["count"]) if found else 0.0
        if found and count > 0:
            if found["of"] in ("week", "day"):
                return cls(count * (7 if found["of"] == "day" else 1), per_week=True)
            of = re.sub(r"[,_ ]", "", found["of"])
            if of and int(of) and count <= int(of):
                return cls(count / int(of), per_week=False)
        raise Misconfigured(f"{text!r} is no budget", hint='say "10/week", "2/day" or "1/10000" (of all objects)')

    def share(self, per_week: float) -> float:
        """The share of objects that may be flagged, when so many objects come in a week."""
        return min(1.0, self.count / per_week) if self.per_week else self.count

    def __str__(self) -> str:
        return f"{self.count:g} a week" if self.per_week else f"1 in {1 / self.count:,.0f}"


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimated share with the bounds in which the true one lies, 19 times in 20."""

    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """The findings of a sample, and the operating points that were chosen on it."""

    version: str  # of the analyser
    model: str
    precision: str
    at: str  # when the sample was looked at, ISO
    stores: tuple[str, ...]
    listed: int  # objects in these stores
    recent: int  # how many of them came in the four weeks before
    not_seen: int  # objects of the sample that could not be looked at
    groups: tuple[str, ...]
    looks: tuple[tuple[Finding, ...], ...]  # in no particular order; frames and sources are left out
    tail: float
    budget: str

    @property
    def points(self) -> OperatingPoints:
        """The operating points of the chosen tail."""
        return operating_points(self.version, self.groups, self.looks, self.tail)


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
    if not looks:
        raise ValueError("no looks to calibrate on")
    allowed = math.floor(tail * len(looks) + 1e-9)
    scores: dict[str, list[float]] = {group: [] for group in groups}
    words: dict[str, dict[str, list[float]]] = {group: {} for group in groups}
    for look in looks:
        for found in look:
            if found.concept in scores and found.version == version:
                scores[found.concept].append(found.score)
                for word, value in found.measures.items():
                    words[found.concept].setdefault(word, []).append(value)
    return OperatingPoints(
        version,
        tail,
        {group: _point(values, allowed) for group, values in scores.items() if values},
        {group: {word: _point(values, allowed) for word, values in found.items()} for group, found in words.items()},
    )


def _point(values: Sequence[float], allowed: int) -> float:
    """The lowest score that at most `allowed` of the values reach."""
    ordered = sorted(values, reverse=True)
    if allowed >= len(ordered):
        return ordered[-1]
    return math.nextafter(ordered[allowed], math.inf)  # this one, and its equals, must stay below


def choose(sample: Calibration, budget: Budget, per_week: float, flags: Callable[[OperatingPoints], int]) -> Calibration:
    """The calibration with the largest tail whose flags on the sample keep to the budget.

    `flags` counts how many looks of the sample a policy held to these points would flag; it must not fall as the tail
    grows. Where even a tail of 0 is over the budget (other rules flag that many by themselves) the tail is 0.
    """
    allowed = math.floor(budget.share(per_week) * len(sample.looks) + 1e-9)
    low, high = 0, math.floor(MOST_TAIL * len(sample.looks))  # numbers of looks beyond a point
    while low < high:
        middle = (low + high + 1) // 2
        if flags(operating_points(sample.version, sample.groups, sample.looks, middle / len(sample.looks))) <= allowed:
            low = middle
        else:
            high = middle - 1
    return replace(sample, tail=low / len(sample.looks), budget=str(budget))


def needed(budget: Budget, per_week: float) -> int:
    """How many looks it takes before one flag among them is within the budget; with fewer, only none is."""
    share = budget.share(per_week)
    return math.ceil(Fraction(1) / Fraction(share).limit_denominator(10**9)) if share > 0 else 0


def anonymous(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The findings of a look without where in the object they were made."""
    return tuple(replace(found, frame=0, source="") for found in findings)


# -- files ----------------------------------------------------------------------------------------------------------------


def save(folder: Path, calibration: Calibration) -> Path:
    """Write it whole or not at all, readable by its owner only. Raises: CannotWrite."""
    path = folder / f"{calibration.version}.json"
    beside = folder / f".{calibration.version}.json"
    facts = {
        "format": _FORMAT,
        **{name: getattr(calibration, name) for name in _FACTS},
        "points": {
            "scores": dict(calibration.points.scores),
            "measures": {k: dict(v) for k, v in calibration.points.measures.items()},
        },
        "looks": [[[f.concept, f.score, f.analyser, f.version, dict(f.measures)] for f in look] for look in calibration.looks],
    }
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        beside.unlink(missing_ok=True)
        beside.touch(0o600)
        beside.write_text(json.dumps(facts), encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise CannotWrite(
            f"cannot write the calibration {path}: {error.strerror}", hint="check the folder and its disk"
        ) from error
    return path


def load(folder: Path, version: str) -> Calibration | None:
    """The calibration of that version, if there is one. Raises: Misconfigured where its file cannot be used."""
    path = folder / f"{version}.json"
    if not path.exists():
        return None
    facts = _read(path)
    try:
        looks = tuple(
            tuple(
                Finding(concept, float(score), analyser, by, measures=measures) for concept, score, analyser, by, measures in look
            )
            for look in facts["looks"]
        )
        return Calibration(
            **{name: tuple(facts[name]) if name in ("stores", "groups") else facts[name] for name in _FACTS}, looks=looks
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(path, error) from error


def points(folder: Path) -> tuple[OperatingPoints, ...]:
    """The operating points of every version that was calibrated, by version. Raises: Misconfigured for an unreadable file."""
    found = []
    for path in sorted(folder.glob("[!.]*.json")):
        facts = _read(path)
        try:
            given: Mapping[str, Any] = facts["points"]
            scores = {str(group): float(value) for group, value in given["scores"].items()}
            measures = {
                str(group): {str(word): float(value) for word, value in words.items()}
                for group, words in given["measures"].items()
            }
            found.append(OperatingPoints(str(facts["version"]), float(facts["tail"]), scores, measures))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _unusable(path, error) from error
        if not all(math.isfinite(value) for values in (scores, *measures.values()) for value in values.values()):
            raise _unusable(path, ValueError("a point is not a number"))
    return tuple(found)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as source:
            facts = json.loads(source.read(_LARGEST))
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from error
    if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
        raise _unusable(path, ValueError("written by another version of this program"))
    return facts


def _unusable(path: Path, error: Exception) -> Misconfigured:
    return Misconfigured(
        f"the calibration {path} cannot be used: {error}", hint="remove that file and run `fediwarden calibrate` again"
    )
