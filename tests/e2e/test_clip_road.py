"""The whole road of an image-text model: pulled from a hub, built, scanned with, calibrated, decided by; its weights are random."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support import clip_weights
from tests.support.clip_models import link_bundled
from tests.support.clip_weights import TINY
from tests.support.command import Home, write
from tests.support.hub_server import WEIGHTS, HubServer, as_catalogue, hub_server, tiny
from tests.support.media_makers import still
from tests.support.models import installed_models
from tests.support.pulled_models import tokenizer

from fediwarden import calibration, config
from fediwarden.inference.build import tokens
from fediwarden.inference.build.architecture import TowerFamily
from fediwarden.inference.catalogue import Tensor
from fediwarden.inference.manifest import ImageInput

COUNT = calibration.LEAST + 10


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the hub holds: weights in open_clip's layout, and a tokenizer as the hub keeps them."""
    folder = tmp_path_factory.mktemp("hub")
    clip_weights.save(folder / WEIGHTS, clip_weights.random_tensors(TINY))
    tokens.read(tokenizer(folder, siglip=False), TowerFamily.CLIP)._library.save(str(folder / "tokenizer.json"))
    return {name: (folder / name).read_bytes() for name in (WEIGHTS, "tokenizer.json")}


@pytest.fixture
def server(files: dict[str, bytes]) -> Iterator[HubServer]:
    with hub_server(files) as running:
        yield running


@pytest.fixture
def road(home: Home, server: HubServer) -> Home:
    """A home with the bundled models and the shipped policy, whose catalogue knows the model of the hub."""
    entry = replace(
        tiny()[0],
        architecture="ViT-B-32-quickgelu",
        dimensions=TINY.dimensions,
        values=sum(array.size for array in clip_weights.random_tensors(TINY).values()),
        image=ImageInput(TINY.size, "longest", (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)),
        tensors=(Tensor("visual.proj", (TINY.image_width, TINY.dimensions)),),
    )
    models = home.folder / "models"
    models.unlink()
    link_bundled(models, installed_models())
    (home.folder / "catalogue.toml").write_text(as_catalogue(entry))
    home.settings = {"FEDIWARDEN_MODELS__HUB": server.address, "FEDIWARDEN_ANALYSIS__SAMPLE": "1"}
    store = home.folder.parent / "store"
    write(store, {f"{number:03}.png": still("png", 40, 30, seed=number) for number in range(COUNT)}, age=24 * 3600 * 21)
    home.add_store("media", url=str(store))
    return home


def analysis(home: Home) -> dict[str, object]:
    found: dict[str, object] = json.loads(home.run("status", "--json").out)["analysis"]
    return found


def test_from_the_hub_to_a_decision_and_back(road: Home, server: HubServer) -> None:
    assert analysis(road)["mode"] == "fast"
    road.run("models", "pull", "tiny-clip")
    assert analysis(road)["mode"] == "fast"  # pulled is not built
    built = road.run("models", "build", "tiny-clip", "--precision", "int8,fp32", "--json").last
    assert (built["model"], sorted(built["towers"]), built["refused"]) == ("tiny-clip", ["fp32", "int8"], {})
    found = analysis(road)
    assert (found["mode"], found["model"], found["precision"], found["calibrated"]) == ("balanced", "tiny-clip", "int8", False)

    first = road.run("scan", "--json", expect=None)
    assert (first.last["seen"], first.last["further"], first.last["flagged"]) == (COUNT, COUNT, 0)
    assert "NOT CALIBRATED" in first.err

    told = road.run("calibrate", "--budget", "1/50", "--sample", str(COUNT), "--json").last
    assert told["seen"] >= calibration.LEAST
    again = road.run("calibrate", "--budget", "1/20")
    assert "without a look" in again.out + again.err or "again" in again.out + again.err
    assert analysis(road)["calibrated"] is True

    opened = len([event for event in road.events() if event["event"] == "object looked"])
    done = road.run("rejudge", "--json").last
    assert done["decided"] == COUNT
    assert done["flagged"] <= COUNT / 20  # the budget, on the very media that it was set on
    assert len([event for event in road.events() if event["event"] == "object looked"]) == opened

    road.run("models", "verify")
    assert not (road.folder.parent / "store" / "nothing").exists()


def test_other_words_need_only_their_embeddings_and_everything_is_looked_at_again(road: Home, server: HubServer) -> None:
    road.run("models", "pull", "tiny-clip")
    road.run("models", "build", "tiny-clip", "--precision", "fp32")
    before = analysis(road), json.loads(road.run("status", "--json").out)["engine"]
    own = Path(road.folder) / "own.toml"
    own.write_text(config.default_policy().replace('"a baby", ', ""))
    road.settings["FEDIWARDEN_POLICY__FILE"] = str(own)

    told = road.run("scan", expect=4)
    assert "models build tiny-clip" in told.err
    built = road.run("models", "build", "tiny-clip", "--precision", "fp32", "--json").last
    after = json.loads(road.run("status", "--json").out)["engine"]

    assert before[1] != after
    assert (built["towers"], built["texts"]) == ([], 23)


def test_a_build_with_the_source_dropped_still_scans(road: Home, server: HubServer) -> None:
    road.run("models", "pull", "tiny-clip")
    road.run("models", "build", "tiny-clip", "--precision", "fp32", "--discard-source")

    few = road.folder.parent / "few"
    write(few, {f"{number}.png": still("png", 40, 30, seed=number) for number in range(3)})

    assert road.run("scan", few, "--json", expect=None).last["further"] == 3
    assert not (road.folder / "models" / "tiny-clip" / WEIGHTS).exists()
