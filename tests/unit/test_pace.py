"""How much is done at a time: by processors, more where a GPU computes, as a setting has it."""

from pathlib import Path

import pytest
from tests.support.clip_models import make_clip_model

from fediwarden import config
from fediwarden.app import GPU_WORKERS, App
from fediwarden.inference import towers
from fediwarden.policy import parse


def app(home: Path, **settings: str) -> App:
    return App({"FEDIWARDEN_HOME": str(home), **{f"FEDIWARDEN_{name}": value for name, value in settings.items()}})


def test_one_picture_more_than_processors_or_what_the_setting_says(tmp_path: Path) -> None:
    assert app(tmp_path).pace.workers == app(tmp_path).cores + 1
    assert app(tmp_path, SCAN__WORKERS="3").pace.workers == 3


def test_a_gpu_is_given_enough_to_make_batches_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    concepts = parse(config.default_policy(), "default").concepts
    assert concepts is not None
    make_clip_model(tmp_path / "models", concepts, precisions=("fp32", "fp16"))
    monkeypatch.setattr(towers, "devices", lambda: ("cuda", "cpu"))

    pace = app(tmp_path).pace

    assert pace.workers >= GPU_WORKERS
    assert app(tmp_path, ANALYSIS__DEVICE="cpu").pace.workers == app(tmp_path).cores + 1


def test_a_model_that_cannot_be_used_does_not_stop_the_counting(tmp_path: Path) -> None:
    assert app(tmp_path, ANALYSIS__MODE="balanced", ANALYSIS__MODEL="none").pace.workers > 0


def test_acting_asks_for_no_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked() -> tuple[str, ...]:
        raise AssertionError("the runtime was asked")

    monkeypatch.setattr(towers, "devices", asked)

    assert app(tmp_path, ANALYSIS__MODE="balanced").object_limit == 256 << 20
