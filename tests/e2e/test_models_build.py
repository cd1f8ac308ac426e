"""`models build` at the command line, on tiny models with random weights: what is printed, which exit code, what is left."""

from pathlib import Path

import pytest
from tests.support import clip_weights
from tests.support.clip_weights import TINY
from tests.support.command import Home
from tests.support.pulled_models import pulled

from fediwarden.inference import manifest as manifests


@pytest.fixture
def own(tmp_path: Path) -> Home:
    """A home whose only model was pulled and not built."""
    home = Home(tmp_path / "home")
    home.folder.mkdir()
    pulled(home.folder)
    return home


def test_build_makes_what_is_missing_prints_the_agreement_and_then_has_nothing_to_do(own: Home) -> None:
    first = own.run("models", "build", "tiny", "--precision", "fp32,int8")
    second = own.run("models", "build", "tiny", "--precision", "fp32,int8")

    assert "built image towers in fp32, int8 and" in first.out
    assert "cosine to fp32" in first.out
    assert "writing the image tower in int8" in first.err
    assert manifests.read(own.folder / "models" / "tiny").precisions == ("int8", "fp32")
    assert second.out == "tiny is built: nothing is missing\n"
    assert [line["state"] for line in own.run("models", "verify", "--json", expect=None).lines if line["model"] == "tiny"] == [
        "ok"
    ] * 6


def test_build_as_json_is_one_object_and_discards_the_weights_when_told(own: Home) -> None:
    ran = own.run("models", "build", "tiny", "--precision", "fp16", "--discard-source", "--json")

    (found,) = ran.lines
    assert (found["towers"], found["built"], found["refused"]) == (["fp16"], ["fp16"], {})
    assert found["texts"] > 10
    assert found["agreement"]["fp16"]["pictures"] == 48
    assert not (own.folder / "models" / "tiny" / "source.safetensors").exists()


def test_a_tower_that_was_asked_for_and_drifts_too_far_ends_with_code_4(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.folder.mkdir()

    def lopsided(tensors: dict[str, clip_weights.Array]) -> None:
        # the largest weights are for what is always zero: fp32 does not mind, and eight bits lose all others beside them
        for number in range(TINY.image_layers):
            block = f"visual.transformer.resblocks.{number}"
            for norm, matrix in (("ln_1", "attn.in_proj_weight"), ("ln_2", "mlp.c_fc.weight")):
                tensors[f"{block}.{norm}.weight"][0] = 0
                tensors[f"{block}.{norm}.bias"][0] = 0
                tensors[f"{block}.{matrix}"][:, 0] = 1000

    pulled(home.folder, TINY, change=lopsided)

    ran = home.run("models", "build", "tiny", "--precision", "int8", expect=4)

    assert "not kept: the image tower in int8: its smallest cosine to fp32 is" in ran.err
    assert manifests.read(home.folder / "models" / "tiny").precisions == ()


def test_a_model_that_was_not_pulled_says_how_to_get_it(own: Home) -> None:
    ran = own.run("models", "build", "clip-vit-l-14", expect=4)

    assert "hint: run `fediwarden models pull clip-vit-l-14`" in ran.err
