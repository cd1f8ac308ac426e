"""`bench` as an administrator runs it: a row a model and precision, hours a store, nothing recorded."""

import pytest
from tests.support.clip_models import link_bundled, make_clip_model, plain_picture
from tests.support.command import Home, write
from tests.support.models import installed_models

from fediwarden import config
from fediwarden.policy import parse


@pytest.fixture
def bench_home(home: Home) -> Home:
    concepts = parse(config.default_policy(), "default").concepts
    assert concepts is not None
    models = home.folder / "models"
    models.unlink()
    link_bundled(models, installed_models())
    make_clip_model(models, concepts, precisions=("fp32", "int8"))
    home.settings["FEDIWARDEN_POLICY__FILE"] = ""
    store = home.folder.parent / "store"
    write(store, {f"{n}.png": plain_picture((9, 9, n), grain=3) for n in range(7)})
    home.add_store("media", url=str(store))
    return home


@pytest.mark.long
def test_every_model_and_precision_is_measured_and_every_mode_has_its_hours(bench_home: Home) -> None:
    told = bench_home.run("bench", "--seconds", "4", "--json")

    parts = {line["part"]: line for line in told.lines if "part" in line}
    (store,) = (line for line in told.lines if "store" in line)
    assert parts.keys() == {"cage", "embedded", "tiny-clip int8", "tiny-clip fp32"}
    for part in parts.values():
        assert part["images"] > 0
        assert part["images_per_second"] > 0
        assert part["memory"] > 10 << 20
    assert (store["store"], store["objects"], store["complete"], store["model"]) == ("media", 7, True, "tiny-clip int8")
    assert 0 < store["hours"]["fast"] <= store["hours"]["balanced"] <= store["hours"]["thorough"]
    assert 0 < store["share"] < 1
    assert not (bench_home.folder / "ledger.sqlite3").exists() or bench_home.run("status", "--json").last["objects"] == 0


@pytest.mark.long
def test_a_broken_model_is_said_and_the_others_are_measured(bench_home: Home) -> None:
    (bench_home.folder / "models" / "tiny-clip" / "image-int8.onnx").write_bytes(b"cut short")

    told = bench_home.run("bench", "--seconds", "3", expect=4)

    assert "altered" in told.err
    assert "tiny-clip fp32" in told.out
    assert "tiny-clip int8, a view" not in told.out
    assert "unmeasured" in told.out


def test_a_store_that_is_not_there_is_told_by_the_exit_code(bench_home: Home) -> None:
    told = bench_home.run("bench", "--seconds", "3", str(bench_home.folder.parent / "nowhere"), expect=None)

    assert told.code in (4, 5)
    assert "hint" in told.err
