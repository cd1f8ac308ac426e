"""Look in, decision out: every key of a policy, the order of rules, the default rule at its boundaries, and what is refused."""

import re
from datetime import UTC, datetime

import pytest

from fediwarden import config
from fediwarden.errors import Misconfigured
from fediwarden.model import (
    Decision,
    EngineVersion,
    Finding,
    Kind,
    Look,
    Note,
    ObjectRef,
    Reason,
    Sha256,
    Standing,
    Step,
    StoreName,
    Unopened,
)
from fediwarden.policy import NO_RULE, RANKS, Policy, decide, parse

NOW = datetime(2026, 5, 6, tzinfo=UTC)


def look(
    *findings: Finding,
    standing: Standing = Standing.SEEN,
    reason: Reason | None = None,
    notes: tuple[Note, ...] = (),
    unopened: tuple[Unopened, ...] = (),
    format: str = "jpeg",
) -> Look:
    return Look(
        ObjectRef(StoreName("media"), "a", 1, "1"),
        standing,
        NOW,
        Sha256("ab" * 32),
        EngineVersion("1"),
        Kind(format, 10, 10),
        findings,
        notes,
        unopened,
        reason,
        "cut off" if reason else "",
    )


def broken(*findings: Finding, unopened: tuple[Unopened, ...] = ()) -> Look:
    return look(*findings, standing=Standing.BROKEN, reason=Reason.TRUNCATED, unopened=unopened)


def found(concept: str, score: float, **measures: float) -> Finding:
    return Finding(concept, score, "stand-in", "1", measures=measures)


def face(score: float = 0.9, *, side: float = 100, age: float = 40, under_18: float = 0.0) -> Finding:
    return found("face", score, side=side, age=age, under_18=under_18)


def decided(policy: Policy, seen: Look) -> Decision:
    made = decide(seen, policy)
    assert made is not None
    return made


DEFAULT = parse(config.default_policy(), "the default policy")
E1, E2 = found("exposed", 0.8), found("explicit", 0.8)
YOUNG = face(age=15, under_18=0.8)
ADULT = face(age=40)


# -- the default rule ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("findings", "step", "rule"),
    [
        ((), Step.PASS, NO_RULE),
        ((YOUNG,), Step.PASS, NO_RULE),
        ((ADULT,), Step.PASS, NO_RULE),
        ((E1,), Step.PASS, NO_RULE),
        ((E2,), Step.PASS, NO_RULE),
        ((E1, ADULT), Step.PASS, NO_RULE),
        ((E1, E2, YOUNG), Step.QUARANTINE, "explicit and young"),
        ((E1, YOUNG), Step.QUARANTINE, "possibly explicit and young"),
        ((E2, YOUNG), Step.QUARANTINE, "possibly explicit and young"),
        ((E1, E2), Step.REVIEW, "explicit, age unknown"),
        ((E1, E2, ADULT), Step.PASS, "explicit, faces look adult"),
        ((E1, E2, ADULT, YOUNG), Step.QUARANTINE, "explicit and young"),
        ((found("drill", 1.0),), Step.QUARANTINE, "drill"),
        ((found("drill", 0.999),), Step.PASS, NO_RULE),
    ],
)
def test_the_default_needs_explicit_content_and_an_apparent_minor(findings: tuple[Finding, ...], step: Step, rule: str) -> None:
    made = decided(DEFAULT, look(*findings))

    assert (made.step, made.rule) == (step, rule)
    assert made.drill is (rule == "drill")


@pytest.mark.parametrize(
    ("findings", "rule"),
    [
        ((found("exposed", 0.3), found("explicit", 0.3), YOUNG), "explicit and young"),
        ((found("exposed", 0.2999), found("explicit", 0.3), YOUNG), "possibly explicit and young"),
        ((found("exposed", 0.3), found("explicit", 0.2999), YOUNG), "possibly explicit and young"),
        ((found("exposed", 0.2999), found("explicit", 0.2999), YOUNG), NO_RULE),
        ((E1, E2, face(age=20.999)), "explicit and young"),
        ((E1, E2, face(age=21)), "explicit, faces look adult"),
        ((E1, E2, face(age=21, under_18=0.4)), "explicit and young"),
        ((E1, E2, face(age=21, under_18=0.3999)), "explicit, faces look adult"),
        ((E1, E2, face(0.4, side=24, age=15)), "explicit and young"),
        ((E1, E2, face(0.3999, side=24, age=15)), "explicit, age unknown"),
        ((E1, E2, face(0.4, side=23.999, age=15)), "explicit, age unknown"),
        ((E1, E2, face(0.4, side=24, age=60)), "explicit, faces look adult"),
    ],
)
def test_the_default_at_its_very_boundaries(findings: tuple[Finding, ...], rule: str) -> None:
    assert decided(DEFAULT, look(*findings)).rule == rule


def test_a_face_without_an_age_is_neither_young_nor_proof_of_an_adult() -> None:
    assert decided(DEFAULT, look(E1, E2, found("face", 0.9))).rule == "explicit, age unknown"
    assert decided(DEFAULT, look(E1, E2, found("face", 0.9, side=50))).step is Step.PASS


def test_the_worse_the_higher_in_the_default() -> None:
    strong, possible = decided(DEFAULT, look(E1, E2, YOUNG)), decided(DEFAULT, look(E1, YOUNG))

    assert strong.rank > possible.rank > decided(DEFAULT, look(E1, E2)).rank > 0


@pytest.mark.parametrize("why", ["encrypted", "too deep", "too large", "too many", "unsupported", "broken"])
def test_a_payload_that_was_not_opened_goes_to_a_person_and_never_hides_what_is_worse(why: str) -> None:
    unopened = (Unopened("trailing/zip", why),)

    assert decided(DEFAULT, look(unopened=unopened)).step is Step.REVIEW
    assert decided(DEFAULT, look(E1, YOUNG, unopened=unopened)).step is Step.QUARANTINE


def test_a_drill_marker_copied_into_something_worse_neither_spends_its_allowance_nor_its_vault() -> None:
    marker = found("drill", 1.0)
    for findings in ((E1, E2, YOUNG), (E1, YOUNG)):
        made = decided(DEFAULT, look(*findings, marker))
        assert (made.step, made.drill) == (Step.QUARANTINE, False)
    assert decided(DEFAULT, look(E1, E2, marker)).drill


def test_a_rule_of_one_s_own_that_a_drill_only_helps_to_match_is_no_drill() -> None:
    text = mark("d", 'finding = "drill"') + mark("x", 'finding = "exposed"') + rule("r", any='["d", "x"]')
    policy = parse("version = 1\n" + text, "x")

    assert decided(policy, look(found("drill", 1.0))).drill
    assert not decided(policy, look(found("drill", 1.0), E1)).drill


# -- what could not be seen ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", list(Reason))
def test_broken_is_never_guilty_and_never_passed(reason: Reason) -> None:
    made = decided(DEFAULT, look(standing=Standing.BROKEN, reason=reason))

    assert made.step is Step.NONE
    assert reason.value in made.because


def test_what_was_found_in_the_part_that_could_be_seen_counts() -> None:
    assert decided(DEFAULT, broken(E1, E2, YOUNG)).step is Step.QUARANTINE
    assert decided(DEFAULT, broken(E1, E2)).step is Step.REVIEW
    assert decided(DEFAULT, broken(E1, E2, ADULT)).step is Step.NONE
    assert decided(DEFAULT, broken(unopened=(Unopened("x", "encrypted"),))).step is Step.REVIEW


def test_neither_a_standing_nor_a_format_puts_what_could_not_be_seen_into_quarantine() -> None:
    marks = mark("gif", 'format = ["gif", "unknown"]') + mark("cut", 'standing = ["broken"]') + mark("x", 'finding = "exposed"')
    policy = parse("version = 1\n" + marks + rule("gifs", all='["gif"]') + rule("cut", all='["cut"]', step="review"), "x")
    unseen = look(standing=Standing.BROKEN, reason=Reason.MALFORMED, format="gif")

    assert decided(policy, look(format="gif")).step is Step.QUARANTINE
    assert decided(policy, unseen).step is Step.REVIEW
    for guilty in (rule("r", all='["cut"]'), rule("r", any='["x", "cut"]'), rule("r", all='["cut"]', none='["x"]')):
        with pytest.raises(Misconfigured, match="never guilty by itself"):
            parse("version = 1\n" + marks + guilty, "x")
    parse("version = 1\n" + marks + rule("r", all='["cut", "x"]'), "x")


@pytest.mark.parametrize("standing", [Standing.GONE, Standing.UNREACHED])
def test_nothing_is_decided_where_nobody_looked(standing: Standing) -> None:
    assert decide(look(E1, E2, YOUNG, standing=standing), DEFAULT) is None


@pytest.mark.parametrize("step", list(Step))
def test_a_person_s_verdict_stands_over_every_rule(step: Step) -> None:
    verdict = Decision(step, "a person", "I looked", by="ada")

    assert decide(look(E1, E2, YOUNG), DEFAULT, verdict) is verdict
    assert decide(broken(), DEFAULT, verdict) is verdict
    assert decide(look(standing=Standing.UNREACHED), DEFAULT, verdict) is None


# -- every key -----------------------------------------------------------------------------------------------------------------------


def mark(name: str, content: str) -> str:
    return f"[mark.{name}]\n{content}\n"


def rule(name: str, *, step: str = "quarantine", because: str = "it says so", rank: int = 0, **groups: str) -> str:
    lines = "".join(f"{key} = {value}\n" for key, value in groups.items())
    return f'[[rule]]\nname = "{name}"\nstep = "{step}"\nbecause = "{because}"\nrank = {rank}\n{lines}'


def shows(content: str, seen: Look) -> bool:
    policy = parse("version = 1\n" + mark("m", content) + rule("r", all='["m"]', step="review"), "x")
    return decided(policy, seen).rule == "r"


@pytest.mark.parametrize(
    ("content", "seen", "expected"),
    [
        ('finding = "exposed"', look(found("exposed", 0.0)), True),
        ('finding = "exposed"', look(found("explicit", 1.0)), False),
        ('finding = "exposed"\nscore = 0.5', look(found("exposed", 0.5)), True),
        ('finding = "exposed"\nscore = 0.5', look(found("exposed", 0.49)), False),
        ('finding = "face"\nat_least = { side = 24 }', look(face(side=24)), True),
        ('finding = "face"\nat_least = { side = 24 }', look(face(side=23)), False),
        ('finding = "face"\nat_least = { mood = 0 }', look(face()), False),
        ('finding = "face"\nbelow = { age = 21 }', look(face(age=20)), True),
        ('finding = "face"\nbelow = { age = 21 }', look(face(age=21)), False),
        ('finding = "face"\nbelow = { mood = 9 }', look(face()), False),
        (
            'finding = "face"\nat_least = { side = 50 }\nbelow = { age = 21 }',
            look(face(side=60, age=40), face(side=9, age=9)),
            False,
        ),
        ('finding = "face"\neither = [{ below = { age = 21 } }, { at_least = { side = 99 } }]', look(face(side=99)), True),
        ('finding = "face"\neither = [{ below = { age = 21 } }, { at_least = { side = 99 } }]', look(face(side=98)), False),
        ('payload = ["any"]', look(unopened=(Unopened("x", "too deep"),)), True),
        ('payload = ["any"]', look(), False),
        ('payload = ["encrypted", "broken"]', look(unopened=(Unopened("x", "broken"),)), True),
        ('payload = ["encrypted"]', look(unopened=(Unopened("x", "broken"),)), False),
        ('note = ["script", "archive"]', look(notes=(Note("archive", "x"),)), True),
        ('note = ["script"]', look(notes=(Note("archive", "x"),)), False),
        ('standing = ["seen"]', look(), True),
        ('standing = ["broken"]', broken(), True),
        ('standing = ["broken"]', look(), False),
        ('format = ["gif", "png"]', look(format="png"), True),
        ('format = ["gif"]', look(format="png"), False),
    ],
)
def test_a_mark_shows_exactly_when_it_says(content: str, seen: Look, expected: bool) -> None:
    assert shows(content, seen) is expected


MARKS = "version = 1\n" + "".join(mark(name, f'finding = "{name}"\nscore = 0.5') for name in ("a", "b", "c"))


@pytest.mark.parametrize(
    ("groups", "matching", "other"),
    [
        ({"all": '["a", "b"]'}, ["ab", "abc"], ["", "a", "b", "c", "ac"]),
        ({"any": '["a", "b"]'}, ["a", "b", "ab", "bc"], ["", "c"]),
        ({"all": '["a"]', "none": '["b"]'}, ["a", "ac"], ["ab", "b", ""]),
        ({"all": '["a"]', "any": '["b", "c"]'}, ["ab", "ac", "abc"], ["a", "bc", ""]),
    ],
)
def test_a_rule_takes_all_and_any_and_none_together(groups: dict[str, str], matching: list[str], other: list[str]) -> None:
    lines = "".join(f"{key} = {value}\n" for key, value in groups.items())
    policy = parse(f'{MARKS}[[rule]]\nname = "r"\nstep = "review"\nbecause = "it says so"\n{lines}', "x")

    for names in (*matching, *other):
        made = decided(policy, look(*(found(name, 0.5) for name in names)))
        assert (made.rule == "r") is (names in matching)


def test_the_first_rule_that_matches_decides_whatever_its_rank_or_step() -> None:
    policy = parse(
        MARKS
        + rule("first", all='["a"]', step="pass")
        + rule("second", all='["b"]', rank=3)
        + rule("third", any='["a", "b"]', rank=9),
        "x",
    )

    assert decided(policy, look(found("a", 1), found("b", 1))).rule == "first"
    made = decided(policy, look(found("b", 1)))
    assert (made.rule, made.rank) == ("second", 3)


def test_a_pass_rule_without_marks_is_the_last_word() -> None:
    policy = parse(MARKS + rule("rest", step="pass") + rule("never", all='["a"]'), "x")

    assert decided(policy, look(found("a", 1))).rule == "rest"


def test_because_says_the_rule_s_words_and_the_evidence_with_its_measures() -> None:
    made = decided(DEFAULT, look(found("exposed", 0.815), found("explicit", 0.5), face(0.9, side=64, age=15.25, under_18=0.75)))

    assert made.because.startswith("two independent models see explicit content")
    for words in ("exposed 0.81", "explicit 0.50", "face 0.90", "age 15.2", "side 64", "under 18 0.75"):
        assert words in made.because
    assert made.policy == DEFAULT.digest
    assert made.by == "policy"


def test_because_says_in_which_frame_and_inside_what() -> None:
    policy = parse(MARKS + rule("r", all='["a"]'), "x")
    inside = Finding("a", 0.9, "stand-in", "1", frame=12, source="trailing/zip/b.jpg")

    assert "frame 12 in trailing/zip/b.jpg" in decided(policy, look(inside)).because


def test_the_strongest_finding_that_meets_the_mark_is_the_evidence() -> None:
    made = decided(DEFAULT, look(E1, E2, face(0.99, age=50), face(0.5, age=12)))

    assert "age 12" in made.because
    assert "age 50" not in made.because


# -- what is refused -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("version = 1\n[[rule]\n", 2, ""),
        ("version = 2\n", 1, "version = 1"),
        ("name = 'x'\n", 0, "version"),
        ("version = 1\n", 0, "no [[rule]]"),
        ("version = 1\nrule = []\n", 2, "no [[rule]]"),
        ("version = 1\ncolour = 1\n", 2, "no such key"),
        (MARKS + rule("r", all='["a"]') + "colour = 1\n", 17, "no such key"),
        ("version = 1\n[mark.m]\nfinding = 'x'\nformat = ['gif']\n" + rule("r", all='["m"]'), 2, "exactly one"),
        ("version = 1\n[mark.m]\nscore = 1\n" + rule("r", all='["m"]'), 2, "exactly one"),
        ("version = 1\n[mark.m]\nformat = ['gif']\nscore = 1\n" + rule("r", all='["m"]'), 2, "go with a finding"),
        ("version = 1\n[mark.m]\nfinding = ''\n" + rule("r", all='["m"]'), 2, "never shows"),
        ("version = 1\n[mark.m]\npayload = []\n" + rule("r", all='["m"]'), 2, "never shows"),
        ("version = 1\n[mark.m]\nfinding = 5\n" + rule("r", all='["m"]'), 2, "words"),
        ("version = 1\n[mark.m]\nnote = 'script'\n" + rule("r", all='["m"]'), 2, "a list"),
        ("version = 1\n[mark.m]\nnote = [1]\n" + rule("r", all='["m"]'), 2, "words"),
        ("version = 1\n[mark.m]\nstanding = ['guilty']\n" + rule("r", all='["m"]'), 2, "no such standing"),
        ("version = 1\n[mark.m]\nfinding = 'x'\neither = 5\n" + rule("r", all='["m"]'), 2, "list of tables"),
        ("version = 1\n[mark.m]\nfinding = 'x'\neither = [{ above = {} }]\n" + rule("r", all='["m"]'), 0, "no such key"),
        ("version = 1\nmark = 5\n" + rule("r", all='["m"]'), 2, "a table"),
        ("version = 1\nrule = ['x']\n", 2, "a table"),
        (MARKS + rule("r", all='["a"]', step="delete"), 12, "step is one of"),
        (MARKS + rule("r", all='["a"]', step="none"), 12, "step is one of"),
        (MARKS + rule("", all='["a"]'), 11, "needs a name"),
        (MARKS + rule("r", all='["a"]', because=""), 12, "because"),
        (MARKS + rule("r", all='["nobody"]'), 16, "does not exist"),
        (MARKS + rule("r", none='["a"]'), 12, "at least one mark"),
        (MARKS + rule("r"), 12, "at least one mark"),
        (MARKS + rule("twice", all='["a"]') + rule("twice", all='["b"]'), 12, "two rules"),
        (MARKS + rule("r", all='["a"]', rank=RANKS + 1), 12, "whole number"),
        (MARKS + rule("r", all='["a"]', rank=-RANKS - 1), 12, "whole number"),
        (MARKS + rule("r", all='["a"]').replace("rank = 0", "rank = 1.5"), 12, "whole number"),
        (MARKS + rule("r", all='["a"]').replace("rank = 0", "rank = true"), 12, "whole number"),
    ],
)
def test_a_mistake_is_told_with_the_file_and_the_line(text: str, line: int, says: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        parse(text, "/etc/policy.toml")

    assert "/etc/policy.toml" in str(refused.value)
    assert says in str(refused.value)
    assert not line or re.search(rf"line {line}\b", str(refused.value))
    assert refused.value.hint


@pytest.mark.parametrize(
    "number", ["nan", "+nan", "inf", "-inf", "true", "'0.3'", "1e999", "9" * 400, "-" + "9" * 5000, "2020-01-01"]
)
@pytest.mark.parametrize(
    "key", ["score = {}", "at_least = {{ side = {} }}", "below = {{ age = {} }}", "either = [{{ below = {{ age = {} }} }}]"]
)
def test_only_numbers_are_thresholds(key: str, number: str) -> None:
    text = "version = 1\n" + mark("m", 'finding = "x"\n' + key.format(number)) + rule("r", all='["m"]')

    with pytest.raises(Misconfigured, match=r"policy\.toml"):
        parse(text, "policy.toml")


@pytest.mark.parametrize("rank", [-RANKS, 0, RANKS])
def test_ranks_within_their_bounds_are_kept(rank: int) -> None:
    policy = parse(MARKS + rule("r", all='["a"]', rank=rank), "x")

    assert decided(policy, look(found("a", 1))).rank == rank


def test_the_digest_changes_exactly_when_a_decision_could() -> None:
    text = MARKS + rule("r", all='["a"]')
    digest = parse(text, "x").digest

    assert parse("# a comment\n" + text, "another file").digest == digest
    assert parse(text.replace("score = 0.5", "score = 0.50"), "x").digest == digest
    assert parse(text.replace("score = 0.5", "score = 0.51"), "x").digest != digest
    assert parse(text + rule("s", all='["b"]'), "x").digest != digest
