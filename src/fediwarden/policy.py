"""Look in, decision out: the marks and rules of a policy file as pure functions; reads no file and keeps no state."""

import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeGuard

from fediwarden.errors import Misconfigured
from fediwarden.model import ConceptGroup, Concepts, Decision, Finding, Look, OperatingPoints, Standing, Step

NO_RULE = "no rule matched"
LARGEST = 1e12  # of the numbers in bounds; no score, age or side comes near
RANKS = 1_000_000  # ranks lie between this and its negative; a database must hold and order them
MOST_WORDS = 64  # in one concept group, of all controls, of all prompts; long lists are neither clinical nor fast
GROUP_NAME = re.compile(r"[a-z][a-z_]{1,40}")
CALIBRATED_ONLY = ("clip",)  # analysers whose numbers no mark may be held to, whatever a policy calls their findings
EMBEDDED = ("exposed", "explicit", "face", "drill", "flat", "further", "sampled")  # what other analysers call their findings
STEPS = (Step.QUARANTINE.value, Step.REVIEW.value, Step.PASS.value)  # what a rule may ask for


@dataclass(frozen=True, slots=True)
class MeasureBounds:
    """Limits on a finding's measures. A measure that the finding lacks meets no bound."""

    at_least: tuple[tuple[str, float], ...] = ()
    below: tuple[tuple[str, float], ...] = ()

    def hold(self, measures: Mapping[str, float]) -> bool:
        """Whether every bound is met."""
        return all(name in measures and measures[name] >= value for name, value in self.at_least) and all(
            name in measures and measures[name] < value for name, value in self.below
        )


@dataclass(frozen=True, slots=True)
class Mark:
    """A named condition on what one look found, or on what the object is."""

    name: str
    finding: str = ""
    score: float = 0.0
    bounds: MeasureBounds = MeasureBounds()
    either: tuple[MeasureBounds, ...] = ()
    payload: tuple[str, ...] = ()
    note: tuple[str, ...] = ()
    standing: tuple[str, ...] = ()
    format: tuple[str, ...] = ()
    calibrated: bool = False  # the score is held to the operating point of its analyser's version, not to a number
    words: int = 0  # calibrated: so many of the group's words reach their own points; 0 asks for the group's score instead
    points: tuple[OperatingPoints, ...] = ()

    def shows(self, look: Look) -> tuple[bool, Finding | None]:
        """Whether the mark shows, and the strongest finding that makes it show if it is about findings."""
        if self.finding:
            shown = [found for found in look.findings if self.meets(found)]
            return bool(shown), max(shown, key=lambda found: found.score, default=None)
        if self.payload:
            return any("any" in self.payload or item.why in self.payload for item in look.unopened), None
        if self.note:
            return any(item.what in self.note for item in look.notes), None
        if self.standing:
            return look.standing.value in self.standing, None
        return look.kind is not None and look.kind.format in self.format, None

    def meets(self, found: Finding) -> bool:
        """Whether one finding makes a mark about findings show."""
        if self.calibrated:
            return found.concept == self.finding and self._stands_out(found)
        return (
            found.concept == self.finding
            and found.analyser not in CALIBRATED_ONLY
            and found.score >= self.score
            and self.bounds.hold(found.measures)
            and (not self.either or any(bounds.hold(found.measures) for bounds in self.either))
        )

    def _stands_out(self, found: Finding) -> bool:
        """Whether a finding is beyond the operating points of the version that made it; never where that one has none."""
        points = next((points for points in self.points if points.version == found.version), None)
        if points is None:
            return False
        if not self.words:
            return found.concept in points.scores and found.score >= points.scores[found.concept]
        marks = points.measures.get(found.concept, {})
        return sum(word in marks and value >= marks[word] for word, value in found.measures.items()) >= self.words


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do when marks come together: every one of `all`, at least one of `any`, not one of `none`."""

    name: str
    step: Step
    because: str
    rank: int = 0
    all: tuple[str, ...] = ()
    any: tuple[str, ...] = ()
    none: tuple[str, ...] = ()

    def matches(self, shown: Mapping[str, bool]) -> bool:
        """Whether the rule applies to the marks that show."""
        return (
            all(shown[name] for name in self.all)
            and (not self.any or any(shown[name] for name in self.any))
            and not any(shown[name] for name in self.none)
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """An ordered set of rules; `digest` changes exactly when a decision could."""

    name: str
    digest: str
    marks: tuple[Mark, ...]
    rules: tuple[Rule, ...]
    concepts: Concepts | None = None
    further: tuple[Mark, ...] = ()  # any of them: worth asking the dear analyser about

    def asks_further(self, findings: Iterable[Finding]) -> bool:
        """Whether what cheap analysers found about one moment is worth a dear look."""
        found = tuple(findings)
        return any(mark.meets(one) for mark in self.further for one in found)

    @property
    def further_digest(self) -> str:
        """Changes exactly when `asks_further` could answer otherwise."""
        facts = sorted({repr((mark.finding, mark.score, mark.bounds, sorted(map(repr, mark.either)))) for mark in self.further})
        return sha256("\n".join(facts).encode()).hexdigest()[:16]

    @property
    def calibrated(self) -> bool:
        """Whether some mark asks for operating points."""
        return any(mark.calibrated for mark in self.marks)


def decide(look: Look, policy: Policy, verdict: Decision | None = None) -> Decision | None:
    """What `policy` makes of a look; None where nobody looked (unreached, gone).

    A person's earlier verdict about the same bytes stands over every rule. A broken look passes no one and accuses no one
    (Step.NONE): only a rule that matches what was found in the part that could be seen decides about it, and neither a
    standing nor a format is something found.
    """
    if not look.settles:
        return None
    if verdict is not None:
        return verdict
    states = {mark.name: mark.shows(look) for mark in policy.marks}
    shown = {name: state for name, (state, _) in states.items()}
    found_out = {mark.name for mark in policy.marks if shown[mark.name] and not mark.standing and not mark.format}
    broken = look.standing is Standing.BROKEN
    for rule in policy.rules:
        if rule.matches(shown):
            if broken and rule.step is Step.PASS:
                return _undecided(look, policy)
            if broken and rule.step is Step.QUARANTINE and found_out.isdisjoint((*rule.all, *rule.any)):
                continue
            evidence = [found for name in (*rule.all, *rule.any) if (found := states[name][1]) is not None]
            return Decision(
                step=rule.step,
                rule=rule.name,
                because=_because(rule, evidence, policy.concepts),
                policy=policy.digest,
                rank=rule.rank,
                drill=bool(evidence) and all(found.concept == "drill" for found in evidence),
            )
    if broken:
        return _undecided(look, policy)
    return Decision(Step.PASS, NO_RULE, "nothing that any rule asks for was found", policy.digest)


def _undecided(look: Look, policy: Policy) -> Decision:
    return Decision(Step.NONE, NO_RULE, f"could not be seen: {look.reason.value if look.reason else look.problem}", policy.digest)


def _because(rule: Rule, evidence: Iterable[Finding], concepts: Concepts | None) -> str:
    groups = {group.name for group in concepts.groups} if concepts else frozenset[str]()
    said = sorted({_in_words(found, calibrated=found.concept in groups) for found in evidence})
    return f"{rule.because} ({'; '.join(said)})" if said else rule.because


def _in_words(found: Finding, *, calibrated: bool) -> str:
    if calibrated:  # its numbers mean nothing beside those of another model
        where = f" in {found.source}" if found.source else ""
        frame = f", frame {found.frame}" if found.frame else ""
        return f"{found.concept.replace('_', ' ')} beyond its operating point{frame}{where}"
    measures = "".join(f", {name.replace('_', ' ')} {value:.3g}" for name, value in sorted(found.measures.items()))
    where = f" in {found.source}" if found.source else ""
    frame = f", frame {found.frame}" if found.frame else ""
    return f"{found.concept} {found.score:.2f}{measures}{frame}{where}"


def parse(text: str, origin: str, points: Iterable[OperatingPoints] = ()) -> Policy:
    """Read a policy from TOML.

    Args:
        text: the file's content.
        origin: what to call it in errors, usually its path.
        points: what calibrated marks are held to, one for each version of an analyser; without any they never show.

    Raises:
        Misconfigured: with the line where it can be told, for anything that is not a policy.
    """
    try:
        table = tomllib.loads(text)
    except ValueError as error:  # TOML's own errors, and numbers of thousands of digits
        raise Misconfigured(
            f"{origin}: {error}", hint="mend that line; `fediwarden init` shows where a fresh copy lies"
        ) from error
    complain = _Complaint(text, origin)
    if table.get("version") != 1:
        raise complain("version", "it must say: version = 1")
    _known(table, {"version", "name", "concepts", "further", "mark", "rule"}, "", complain)
    concepts = _concepts(table["concepts"], complain) if "concepts" in table else None
    groups = {group.name: len(group.words) for group in concepts.groups} if concepts else {}
    points = tuple(sorted(points, key=lambda known: known.version))
    marks = tuple(
        _mark(name, entry, groups, points, complain) for name, entry in _table(table.get("mark", {}), "mark", complain).items()
    )
    entries = table.get("rule", [])
    if not isinstance(entries, list) or not entries:
        raise complain("rule", "there is no [[rule]]; a policy without rules would pass everything")
    rules = tuple(_rule(entry, {mark.name: mark for mark in marks}, complain) for entry in entries)
    for rule in rules:
        if sum(other.name == rule.name for other in rules) > 1:
            raise complain(rule.name, "two rules have this name; `explain` could not tell them apart")
    facts: list[object] = [table.get("mark", {}), entries]
    if any(mark.calibrated for mark in marks) and points:
        facts.append([[known.version, dict(known.scores), {k: dict(v) for k, v in known.measures.items()}] for known in points])
    digest = sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    further = _further(table.get("further", {}), {mark.name: mark for mark in marks}, complain)
    return Policy(str(table.get("name", origin)), digest, marks, rules, concepts, further)


class _Complaint:
    """Makes errors that name the line on which the offending word first stands."""

    def __init__(self, text: str, origin: str) -> None:
        self._lines = text.splitlines()
        self._origin = origin

    def __call__(self, word: str, message: str) -> Misconfigured:
        pattern = re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])")
        for number, line in enumerate(self._lines, 1):
            if pattern.search(line.split("#")[0]):
                return Misconfigured(f"{self._origin}, line {number}: {word}: {message}", hint="see docs/policy.md for every key")
        return Misconfigured(f"{self._origin}: {word}: {message}", hint="see docs/policy.md for every key")


def _concepts(entry: object, complain: _Complaint) -> Concepts:
    table = _table(entry, "concepts", complain)
    lists = {name: _words(words, name, complain) for name, words in table.items()}
    prompts, controls = lists.pop("prompts", ("{}",)), lists.pop("controls", ())
    for name, words in (("prompts", prompts), ("controls", controls), *lists.items()):
        if not 0 < len(words) <= MOST_WORDS or not all(word.strip() for word in words):
            raise complain(name, f"a list of 1 to {MOST_WORDS} short texts is expected")
        if len(set(words)) != len(words):
            raise complain(name, "a text is there twice")
    if any(prompt.count("{}") != 1 or not set("{}").isdisjoint(prompt.replace("{}", "")) for prompt in prompts):
        raise complain("prompts", "each holds {} once, where the word goes, and no other brace")
    if not lists:
        raise complain("concepts", "there is no group, such as apparent_minor = [...]")
    for name in lists:
        if not GROUP_NAME.fullmatch(name) or name in EMBEDDED:
            raise complain(name, f"a group's name is lower-case letters and _, and none of {', '.join(EMBEDDED)}")
    return Concepts(tuple(ConceptGroup(name, words) for name, words in lists.items()), controls, prompts)


def _further(entry: object, marks: Mapping[str, Mark], complain: _Complaint) -> tuple[Mark, ...]:
    table = _table(entry, "further", complain)
    _known(table, {"any"}, "further", complain)
    names = _words(table.get("any", []), "further", complain)
    for name in names:
        if name not in marks:
            raise complain(name, "[further] names a mark that does not exist")
        if not marks[name].finding or marks[name].calibrated:
            raise complain(name, "[further] names marks about findings of the embedded default only")
    return tuple(marks[name] for name in names)


def _mark(name: str, entry: object, groups: Mapping[str, int], points: tuple[OperatingPoints, ...], complain: _Complaint) -> Mark:
    table = _table(entry, name, complain)
    subjects = {"finding", "payload", "note", "standing", "format"}
    _known(table, subjects | {"score", "at_least", "below", "either", "calibrated", "words"}, name, complain)
    if len(subjects & table.keys()) != 1:
        raise complain(name, f"a mark is about exactly one of {', '.join(sorted(subjects))}")
    if "finding" not in table and table.keys() - subjects:
        raise complain(name, "score, at_least, below, either, calibrated and words go with a finding")
    calibrated, least = _calibrated(name, table, groups, complain)
    standings = _words(table.get("standing", []), name, complain)
    if unknown := set(standings) - {standing.value for standing in Standing}:
        raise complain(name, f"no such standing: {', '.join(sorted(unknown))}")
    if not all(table[subject] for subject in subjects & table.keys()):
        raise complain(name, "an empty mark never shows")
    either = table.get("either", [])
    if not isinstance(either, list):
        raise complain(name, "either is a list of tables")
    return Mark(
        name,
        finding=_word(table.get("finding", ""), name, complain),
        score=_number(table.get("score", 0.0), name, complain),
        bounds=_bounds({key: table[key] for key in ("at_least", "below") if key in table}, name, complain),
        either=tuple(_bounds(item, name, complain) for item in either),
        payload=_words(table.get("payload", []), name, complain),
        note=_words(table.get("note", []), name, complain),
        standing=standings,
        format=_words(table.get("format", []), name, complain),
        calibrated=calibrated,
        words=least,
        points=points if calibrated else (),
    )


def _calibrated(name: str, table: Mapping[str, object], groups: Mapping[str, int], complain: _Complaint) -> tuple[bool, int]:
    """Whether the mark is held to operating points, and how many words it asks for."""
    finding, calibrated, least = table.get("finding"), table.get("calibrated", False), table.get("words", 0)
    if not isinstance(calibrated, bool):
        raise complain(name, "calibrated is true or false")
    if not isinstance(least, int) or isinstance(least, bool) or least < 0:
        raise complain(name, "words is a whole number")
    if isinstance(finding, str) and finding in groups:
        if not calibrated or table.keys() & {"score", "at_least", "below", "either"}:
            raise complain(
                name, f"numbers of {finding} belong to one model and one precision; say calibrated = true and no number"
            )
        if least > groups[finding]:
            raise complain(name, f"{finding} has only {groups[finding]} words")
    elif calibrated or least:
        raise complain(name, "calibrated and words are for the groups in [concepts]")
    return calibrated, least


def _rule(entry: object, marks: Mapping[str, Mark], complain: _Complaint) -> Rule:
    table = _table(entry, "rule", complain)
    name = _word(table.get("name", ""), "rule", complain)
    if not name:
        raise complain("rule", "every rule needs a name")
    _known(table, {"name", "step", "because", "rank", "all", "any", "none"}, name, complain)
    step = table.get("step")
    if not isinstance(step, str) or step not in STEPS:
        raise complain(name, f"step is one of {', '.join(STEPS)}, not {step!r}")
    because = _word(table.get("because", ""), name, complain)
    if not because:
        raise complain(name, 'a rule says because = "..." in words a moderator understands')
    rank = table.get("rank", 0)
    if not isinstance(rank, int) or isinstance(rank, bool) or abs(rank) > RANKS:
        raise complain(name, f"rank is a whole number from {-RANKS} to {RANKS}")
    groups = {key: _words(table.get(key, []), name, complain) for key in ("all", "any", "none")}
    for mark in {mark for group in groups.values() for mark in group} - marks.keys():
        raise complain(mark, f"rule {name!r} names a mark that does not exist")
    if not groups["all"] and not groups["any"] and step != Step.PASS.value:
        raise complain(name, "a rule against an object names at least one mark in all or any")
    # one mark of `all` that is evidence is enough; without one, every mark of `any` must be
    seen = any(not marks[mark].standing for mark in groups["all"])
    if step == Step.QUARANTINE.value and not seen and not (groups["any"] and not any(marks[m].standing for m in groups["any"])):
        raise complain(name, 'what could not be seen is never guilty by itself; a standing alone may lead to step = "review"')
    return Rule(name, Step(step), because, rank, groups["all"], groups["any"], groups["none"])


def _bounds(entry: object, name: str, complain: _Complaint) -> MeasureBounds:
    table = _table(entry, name, complain)
    _known(table, {"at_least", "below"}, name, complain)
    sides = {
        key: tuple(
            (measure, _number(value, name, complain))
            for measure, value in sorted(_table(table.get(key, {}), name, complain).items())
        )
        for key in ("at_least", "below")
    }
    return MeasureBounds(sides["at_least"], sides["below"])


def _known(table: Mapping[str, object], known: set[str], name: str, complain: _Complaint) -> None:
    for key in table.keys() - known:
        raise complain(key, f"no such key{f' in {name!r}' if name else ''}; known are {', '.join(sorted(known))}")


def _is_table(entry: object) -> TypeGuard[dict[str, object]]:
    return isinstance(entry, dict)


def _table(entry: object, name: str, complain: _Complaint) -> dict[str, object]:
    if not _is_table(entry):
        raise complain(name, "a table is expected here")
    return entry


def _word(entry: object, name: str, complain: _Complaint) -> str:
    if not isinstance(entry, str):
        raise complain(name, f"words in quotes are expected, not {entry!r}")
    return entry


def _words(entry: object, name: str, complain: _Complaint) -> tuple[str, ...]:
    if not isinstance(entry, list):
        raise complain(name, f"a list of words in quotes is expected, not {entry!r}")
    return tuple(_word(item, name, complain) for item in entry)


def _number(entry: object, name: str, complain: _Complaint) -> float:
    if isinstance(entry, bool) or not isinstance(entry, int | float) or not -LARGEST <= entry <= LARGEST:
        raise complain(name, f"a number is expected, not {entry!r}"[:200])
    return float(entry)
