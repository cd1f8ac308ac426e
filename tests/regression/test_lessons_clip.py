"""What a library of models and its callers got wrong with CLIP, each as a test of its row."""

import ast
import inspect
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.support.clip_models import make_clip_model
from tests.support.core import Core
from tests.support.pictures import frame_of

import fediwarden
from fediwarden import config
from fediwarden.analysers.cascade import Cascade
from fediwarden.analysers.clip import Clip
from fediwarden.errors import Misconfigured, Unreached
from fediwarden.inference import sessions
from fediwarden.inference.towers import ChosenTower, choose
from fediwarden.model import Concepts, EngineVersion, Finding, Look, ObjectRef, OperatingPoints, Sha256, Standing, Step, StoreName
from fediwarden.policy import decide, parse

SOURCE = Path(fediwarden.__file__).parent
POLICY = parse(config.default_policy(), "default")
assert POLICY.concepts is not None
CONCEPTS: Concepts = POLICY.concepts


def loaded(folder: Path, **changes: object) -> Clip:
    made = make_clip_model(folder, CONCEPTS, **changes)  # type: ignore[arg-type]
    return Clip.load(folder, ChosenTower(made, "fp32", "cpu", forced=False), CONCEPTS)


def look_of(findings: list[Finding]) -> Look:
    at = datetime(2026, 5, 1, tzinfo=UTC)
    return Look(
        ObjectRef(StoreName("s"), "k", 1, "e"), Standing.SEEN, at, Sha256("ab" * 32), EngineVersion("1"), findings=tuple(findings)
    )


def suspicious(clip: Clip) -> list[Finding]:
    """What the stand-in finds in yellow, which is both of its groups at once."""
    return clip.analyse([frame_of(Image.new("RGB", (64, 64), "yellow"))])


def points_for(clip: Clip, mark: float) -> OperatingPoints:
    return OperatingPoints(clip.version, 0.01, {group.name: mark for group in CONCEPTS.groups}, {})


def test_h1_a_mark_set_for_one_model_or_precision_means_nothing_for_another(tmp_path: Path) -> None:
    ours, other = loaded(tmp_path / "a"), loaded(tmp_path / "b", turned=0.01)
    bound = parse(config.default_policy(), "default", [points_for(ours, 0.1)])

    assert decide(look_of(suspicious(ours)), bound).step is Step.QUARANTINE  # type: ignore[union-attr]
    assert decide(look_of(suspicious(other)), bound).step is Step.PASS  # type: ignore[union-attr]


def test_h1_uncalibrated_it_informs_and_decides_nothing(tmp_path: Path) -> None:
    clip = loaded(tmp_path)
    found = suspicious(clip)

    decision = decide(look_of(found), POLICY)

    assert decision is not None
    assert decision.step is Step.PASS
    assert {one.concept for one in found} == {"apparent_minor", "sexual_content"}


def test_h1_a_raw_number_for_it_cannot_even_be_written_down() -> None:
    raw = config.default_policy().replace(
        'finding = "apparent_minor"\ncalibrated = true', 'finding = "apparent_minor"\nscore = 0.2'
    )
    assert raw != config.default_policy()

    with pytest.raises(Misconfigured, match="calibrated = true"):
        parse(raw, "raw")


def test_h1_a_policy_that_leaves_the_concepts_out_cannot_hold_old_findings_to_a_number(tmp_path: Path) -> None:
    """The ledger keeps what CLIP found; `rejudge` under another policy must not decide on its raw scores."""
    found = suspicious(loaded(tmp_path))
    raw = parse(
        'version = 1\n[mark.m]\nfinding = "apparent_minor"\nscore = 0.0\n'
        '[[rule]]\nname = "r"\nall = ["m"]\nstep = "quarantine"\nbecause = "raw"\n',
        "raw",
    )

    decision = decide(look_of(found), raw)

    assert decision is not None
    assert decision.step is Step.PASS


@pytest.mark.parametrize("preset", ["default", "fedi-safety"])
def test_h2_no_word_and_no_setting_is_about_ethnicity(preset: str) -> None:
    forbidden = re.compile(r"asian|black|white|african|arab|latin|hispanic|european|indian|ethnic|race\b|skin", re.IGNORECASE)
    policy = parse(config.default_policy(preset), preset)
    assert policy.concepts is not None

    said = [*policy.concepts.texts, *policy.concepts.prompts, *(name for name, _ in config.every_setting())]

    assert [text for text in said if forbidden.search(text)] == []


def test_h3_nothing_but_the_pixels_and_the_policy_moves_a_score(tmp_path: Path) -> None:
    """The tool that this row is about lifted scores for some requests of picture generators."""
    parameters = set(inspect.signature(Clip.analyse).parameters)
    clip = loaded(tmp_path)
    pixels = Image.new("RGB", (64, 64), "orange")

    named = replace(frame_of(pixels), source="zip/porn.jpg", codes=("nsfw",), view="tile 1/2")

    assert parameters == {"self", "frames"}
    assert [one.score for one in clip.analyse([named])] == [one.score for one in clip.analyse([frame_of(pixels)])]


def test_h4_no_third_party_class_is_patched_and_nothing_is_cached_without_bound(tmp_path: Path) -> None:
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imported = {
            name.asname or name.name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, ast.Import)
            for name in node.names
            if not name.name.startswith("fediwarden")
        }
        targets = [target for node in ast.walk(tree) if isinstance(node, ast.Assign) for target in node.targets]
        patched = [
            ast.unparse(target)
            for target in targets
            if isinstance(target, ast.Attribute)
            and isinstance(target.value, ast.Name)
            and target.value.id in imported
            and (target.value.id, target.attr) != ("logging", "raiseExceptions")  # the switch that the library offers
        ]
        assert patched == [], path

    clip = loaded(tmp_path)
    before = len(vars(clip))
    for number in range(200):
        clip.analyse([frame_of(Image.new("RGB", (8, 8), (number, 0, 0)))])
    assert len(vars(clip)) == before


def test_h6_these_tests_assert_and_the_project_s_ci_runs_them() -> None:
    root = Path(__file__).parents[2]
    tests = asserts = 0
    for path in sorted((root / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            tests += isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
            asserts += isinstance(node, ast.Assert) or (isinstance(node, ast.Attribute) and node.attr == "raises")

    assert asserts > 2 * tests > 1_000
    assert "./test" in (root / ".ci" / "run").read_text()
    assert not list(root.glob(".github/workflows/*"))  # nothing there that runs a stranger's files with our rights


def test_f20_the_device_is_chosen_by_what_there_is_said_and_forced_by_a_setting(tmp_path: Path) -> None:
    made = make_clip_model(tmp_path, CONCEPTS)

    assert choose([made], there=("cuda", "cpu")).device == "cuda"
    assert choose([made], device="cpu", there=("cuda", "cpu")).device == "cpu"
    clip = Clip.load(tmp_path, choose([made], there=sessions.devices()), CONCEPTS)
    assert clip.device in sessions.PROVIDERS
    with pytest.raises(Misconfigured):
        choose([made], device="cuda", there=("cpu",))


def test_f21_the_encoder_runs_once_a_view_whatever_is_asked_about_it(tmp_path: Path) -> None:
    clip = loaded(tmp_path)
    runs: list[int] = []
    embed = clip._tower.embed

    def counting(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        runs.append(len(pixels))
        return embed(pixels)

    clip._tower.embed = counting  # type: ignore[method-assign]
    found = clip.analyse([frame_of(Image.new("RGB", (64, 64), "red"))])

    assert sum(runs) == 1
    assert sum(len(one.measures) for one in found) == sum(len(group.words) for group in CONCEPTS.groups)


class _Failing:
    """An image-text model on a bad day."""

    name = "clip"
    version = "v"

    def analyse(self, frames: object) -> list[Finding]:
        raise Unreached("the model gave no answer")


class _Rubbish(_Failing):
    def analyse(self, frames: object) -> list[Finding]:
        return [Finding("apparent_minor", float("nan"), "clip", "v")]


@pytest.mark.parametrize("dear", [_Failing(), _Rubbish()], ids=["no answer", "not a number"])
def test_f26_a_fault_of_the_model_is_a_fault_and_no_verdict(dear: _Failing) -> None:
    core = Core(cascade=Cascade(dear, None, "", 0.0, b"k"))
    core.store.put("a.png", b"bad")

    tally = core.scan()

    assert (tally.seen, tally.unreached, tally.passed, tally.flagged) == (0, 1, 0, 0)
    assert core.entry("a.png").decision is None
