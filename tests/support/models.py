"""The bundled models, installed once for all tests into a folder that outlives the run, and the fixture that asks for them.

`FEDIWARDEN_TEST_MODELS` names the folder; without it `.work/models` in the repository is used.
"""

import os
from functools import cache
from pathlib import Path

import pytest

from fediwarden.analysers.bundled import Bundled
from fediwarden.inference import registry

REPOSITORY = Path(__file__).parents[2]


@cache
def installed_models() -> Path:
    """The folder with the bundled models in it; the first call ever fetches them, later ones only hash what is there."""
    folder = Path(os.environ.get("FEDIWARDEN_TEST_MODELS") or REPOSITORY / ".work" / "models")
    registry.install(folder)
    return folder


@cache
def loaded_bundled() -> Bundled:
    """The bundled analyser, loaded once for the whole session."""
    return Bundled(installed_models())


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder with the bundled models."""
    return installed_models()


@pytest.fixture(scope="session")
def bundled() -> Bundled:
    """The bundled analyser; nobody may change it."""
    return loaded_bundled()
