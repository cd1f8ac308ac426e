"""Pulling, importing and removing image-text models: whole, checked and pinned, or not at all."""

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from tests.support.disks import largest_file, small_disk
from tests.support.hub_server import (
    REPOSITORY,
    REVISION,
    TOKENIZER,
    WEIGHTS,
    HubServer,
    at_once,
    hub_server,
    left_of,
    safetensors,
    tiny,
)

from fediwarden.errors import CannotWrite, Misconfigured, Unreached
from fediwarden.inference import obtain, registry
from fediwarden.inference.catalogue import CatalogueEntry
from fediwarden.inference.hub import Hub
from fediwarden.inference.manifest import Agreement, HubOrigin, ModelManifest, Role
from fediwarden.inference.registry import Check, FileState

ENTRY, FILES = tiny()
SOURCE = sha256(FILES[WEIGHTS]).hexdigest()
WHOLE = {"tiny-clip", "tiny-clip/manifest.toml", f"tiny-clip/{WEIGHTS}", "tiny-clip/tokenizer.json"}


@pytest.fixture
def server() -> Iterator[HubServer]:
    with hub_server(FILES) as running:
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "models"


def hub_of(server: HubServer) -> Hub:
    return Hub(server.address, timeout=5, sleep=at_once)


def pulled(home: Path, entry: CatalogueEntry = ENTRY) -> ModelManifest:
    with hub_server(FILES) as running:
        return obtain.pull(home, entry, hub_of(running)).manifest


def build_something(home: Path, tmp_path: Path) -> ModelManifest:
    """An image tower, as `models build` adds one."""
    tower = tmp_path / "image-fp16.onnx"
    tower.write_bytes(b"a tower")
    weighed = registry.weigh(tower, Role.IMAGE, precision="fp16")

    def change(before: ModelManifest) -> ModelManifest:
        assert before.image_text is not None
        measured = replace(before.image_text, agreements=(Agreement("fp16", 10, 0.999, 0.99),))
        return replace(before, files=(*before.files, weighed), image_text=measured)

    return registry.replace_files(home, "tiny-clip", change, {tower.name: tower})


# pulling


def test_a_pull_installs_whole_and_pins_what_it_got(server: HubServer, home: Path) -> None:
    said: list[str] = []

    got = obtain.pull(home, ENTRY, hub_of(server), said.append)

    assert got.fresh
    assert got.manifest == registry.manifest_of(home, "tiny-clip")
    assert got.manifest.origin == HubOrigin(REPOSITORY, REVISION, verified=False, source=SOURCE)
    assert {file.name: file.sha256 for file in got.manifest.files} == {
        name: sha256(data).hexdigest() for name, data in FILES.items()
    }
    assert got.manifest.image_text is not None
    assert got.manifest.image_text.scale == pytest.approx(100.0, rel=1e-5)  # read out of the weights
    assert got.manifest.precision == "fp32"
    assert left_of(home) == WHOLE
    assert [REVISION[:12] in line for line in said] == [False, True, True]
    assert Check("tiny-clip", WEIGHTS, FileState.OK) in registry.verify(home)


def test_a_second_pull_asks_nobody(server: HubServer, home: Path) -> None:
    obtain.pull(home, ENTRY, hub_of(server))
    server.asked.clear()

    assert not obtain.pull(home, ENTRY, hub_of(server)).fresh
    assert server.asked == []
    assert left_of(home) == WHOLE


def test_an_altered_file_is_fetched_again_at_the_pinned_revision_and_what_was_built_stays(
    server: HubServer, home: Path, tmp_path: Path
) -> None:
    obtain.pull(home, ENTRY, hub_of(server))
    before = build_something(home, tmp_path)
    with (home / "tiny-clip" / WEIGHTS).open("r+b") as out:
        out.write(b"altered")
    server.moods["api"].statuses = [(500, {})] * 20  # nobody asks which revision is the newest

    got = obtain.pull(home, ENTRY, hub_of(server))

    assert got.fresh
    assert set(got.manifest.files) == set(before.files)
    assert got.manifest.image_text == before.image_text
    assert {check.state for check in registry.verify(home) if check.model == "tiny-clip"} == {FileState.OK}


def test_weights_that_were_dropped_after_building_are_held_to_their_hash_when_they_come_back(
    server: HubServer, home: Path, tmp_path: Path
) -> None:
    obtain.pull(home, ENTRY, hub_of(server))
    built = build_something(home, tmp_path)

    def drop(now: ModelManifest) -> ModelManifest:
        return replace(now, files=tuple(file for file in now.files if file.role is not Role.SOURCE))

    registry.replace_files(home, "tiny-clip", drop)
    server.files[WEIGHTS] = safetensors(
        {"visual.proj": (300, 300), "token_embedding.weight": (300, 300), "logit_scale": ()}, seed=2
    )
    with pytest.raises(Misconfigured, match="pinned"):
        obtain.pull(home, ENTRY, hub_of(server))
    server.files[WEIGHTS] = FILES[WEIGHTS]

    got = obtain.pull(home, ENTRY, hub_of(server))

    assert got.fresh
    assert set(got.manifest.files) == set(built.files)


def test_a_hub_that_changed_its_mind_is_held_to_the_first_pull(server: HubServer, home: Path) -> None:
    obtain.pull(home, ENTRY, hub_of(server))
    (home / "tiny-clip" / WEIGHTS).unlink()
    server.files[WEIGHTS] = safetensors(
        {"visual.proj": (300, 300), "token_embedding.weight": (300, 300), "logit_scale": ()}, seed=2
    )

    with pytest.raises(Misconfigured, match="pinned"):
        obtain.pull(home, ENTRY, hub_of(server))
    assert not any(name.startswith(".pulling") for name in left_of(home))


def test_what_the_release_knows_is_asked_for_and_called_verified(server: HubServer, home: Path) -> None:
    files = tuple(replace(file, sha256=sha256(FILES[file.name]).hexdigest(), size=len(FILES[file.name])) for file in ENTRY.files)
    known = replace(ENTRY, revision=REVISION, files=files)
    server.moods["api"].statuses = [(500, {})] * 20

    assert obtain.pull(home, known, hub_of(server)).manifest.origin == HubOrigin(
        REPOSITORY, REVISION, verified=True, source=SOURCE
    )


def test_another_file_than_the_release_knows_is_refused(server: HubServer, home: Path) -> None:
    known = replace(ENTRY, files=(replace(ENTRY.files[0], sha256="0" * 64), ENTRY.files[1]))

    with pytest.raises(Misconfigured, match="pinned"):
        obtain.pull(home, known, hub_of(server))
    assert left_of(home) == set()


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (
            safetensors({"visual.proj": (300, 512), "token_embedding.weight": (300, 300), "logit_scale": ()}),
            "should be 300 x 300",
        ),
        (
            safetensors({"vision.proj": (300, 300), "token_embedding.weight": (300, 300), "logit_scale": ()}),
            "no array visual.proj",
        ),
        (safetensors({"visual.proj": (300, 300), "logit_scale": ()}), "holds 90,001 values"),
        (safetensors({"visual.proj": (300, 300), "token_embedding.weight": (300, 300), "more": (1,)}), "no number logit_scale"),
        (b"PK\x03\x04" + bytes(5000), "is a pickle"),
        (b"\x80\x02ctorch._utils" + bytes(5000), "is a pickle"),
        (b"<html>not found</html>", "not a safetensors file"),
        (b"", "not a safetensors file"),
        (FILES[WEIGHTS][:-1], "not a safetensors file"),
        (FILES[WEIGHTS] + b"\0", "not a safetensors file"),
    ],
)
def test_what_is_not_the_architecture_is_refused_whatever_it_is_called(
    server: HubServer, home: Path, weights: bytes, words: str
) -> None:
    server.files[WEIGHTS] = weights

    with pytest.raises(Misconfigured) as caught:
        obtain.pull(home, ENTRY, hub_of(server))
    assert words in str(caught.value)
    assert left_of(home) == set()


@pytest.mark.parametrize("page", [b"<html>", b"{}", b'"a model"', b"[" * 100_000])
def test_a_page_in_place_of_a_tokenizer_is_refused(server: HubServer, home: Path, page: bytes) -> None:
    server.files["tokenizer.json"] = page

    with pytest.raises(Misconfigured, match="tokenizer"):
        obtain.pull(home, ENTRY, hub_of(server))
    assert left_of(home) == set()


def test_a_pull_that_was_broken_off_goes_on_at_the_revision_it_began_with(server: HubServer, home: Path) -> None:
    server.moods[WEIGHTS].break_after = [300_000, 0, 0, 0, 0]
    with pytest.raises(Unreached) as caught:
        obtain.pull(home, ENTRY, hub_of(server))
    assert "goes on" in caught.value.hint
    assert list(obtain.leftovers(home).values()) == [300_000]
    server.moods[WEIGHTS].break_after = []
    server.moods["api"].statuses = [(500, {})] * 20
    server.asked.clear()

    obtain.pull(home, ENTRY, hub_of(server))

    assert server.ranges(WEIGHTS) == ["bytes=300000-"]
    assert left_of(home) == WHOLE


def test_a_pull_that_got_nothing_leaves_nothing(server: HubServer, home: Path) -> None:
    server.moods["api"].statuses = [(404, {})]

    with pytest.raises(Misconfigured):
        obtain.pull(home, ENTRY, hub_of(server))
    assert left_of(home) == set()


def test_a_pull_onto_a_disk_that_fails_keeps_what_it_has_and_installs_nothing(server: HubServer, home: Path) -> None:
    with largest_file(200_000), pytest.raises(CannotWrite):
        obtain.pull(home, ENTRY, hub_of(server))
    assert not (home / "tiny-clip").exists()
    assert obtain.leftovers(home)["tiny-clip"] > 0

    obtain.pull(home, ENTRY, hub_of(server))
    assert left_of(home) == WHOLE


# importing


def weights_folder(tmp_path: Path, weights: str = WEIGHTS) -> Path:
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / weights).write_bytes(FILES[WEIGHTS])
    (folder / "tokenizer.json").write_bytes(TOKENIZER)
    return folder


def cache_folder(tmp_path: Path, blob: str = "") -> Path:
    cache = tmp_path / "hub" / "models--somebody--tiny-clip"
    snapshot = cache / "snapshots" / REVISION
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(REVISION)
    for name, data in FILES.items():
        digest = blob or sha256(data).hexdigest()
        (cache / "blobs" / digest).write_bytes(data)
        (snapshot / name).symlink_to(Path("../../blobs") / digest)
        blob = ""
    return cache


@pytest.mark.parametrize("called", [WEIGHTS, "my-own-name.safetensors"])
def test_a_folder_with_weights_and_tokenizer_is_taken_in(tmp_path: Path, home: Path, called: str) -> None:
    folder = weights_folder(tmp_path, called)

    got = obtain.import_(home, folder, "tiny-clip", (ENTRY,))

    assert got.fresh
    assert got.manifest.origin == HubOrigin(str(folder), "", source=SOURCE)
    assert left_of(home) == WHOLE
    assert (folder / called).exists()
    assert not obtain.import_(home, folder, "tiny-clip", (ENTRY,)).fresh


@pytest.mark.parametrize("inner", ["", f"snapshots/{REVISION}"])
def test_a_hubs_cache_is_taken_in_with_its_revision(tmp_path: Path, home: Path, inner: str) -> None:
    got = obtain.import_(home, cache_folder(tmp_path) / inner, "", (ENTRY,))

    assert got.manifest.origin == HubOrigin(REPOSITORY, REVISION, source=SOURCE)
    assert left_of(home) == WHOLE
    assert not any(path.is_symlink() for path in home.rglob("*"))


def test_a_cache_whose_blob_is_damaged_is_refused(tmp_path: Path, home: Path) -> None:
    with pytest.raises(Misconfigured, match="SHA-256 is another"):
        obtain.import_(home, cache_folder(tmp_path, blob="0" * 64), "", (ENTRY,))
    assert left_of(home) == set()


def test_a_cache_of_another_repository_is_refused(tmp_path: Path, home: Path) -> None:
    with pytest.raises(Misconfigured, match="comes from elsewhere/else"):
        obtain.import_(home, cache_folder(tmp_path), "tiny-clip", (replace(ENTRY, repository="elsewhere/else"),))


def test_the_folder_above_a_cache_is_told_from_the_cache(tmp_path: Path, home: Path) -> None:
    with pytest.raises(Misconfigured) as caught:
        obtain.import_(home, cache_folder(tmp_path).parent, "", (ENTRY,))
    assert "models--somebody--tiny-clip" in caught.value.hint


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path, home: Path) -> None:
    folder = weights_folder(tmp_path)
    (tmp_path / "elsewhere").write_bytes(TOKENIZER)
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(Misconfigured, match="outside"):
        obtain.import_(home, folder, "tiny-clip", (ENTRY,))
    assert left_of(home) == set()


def test_a_pipe_or_a_loop_in_the_folder_does_not_hang_or_fall_over(tmp_path: Path, home: Path) -> None:
    folder = weights_folder(tmp_path)
    (folder / "tokenizer.json").unlink()
    os.mkfifo(folder / "tokenizer.json")
    with pytest.raises(Misconfigured, match="not a file"):
        obtain.import_(home, folder, "tiny-clip", (ENTRY,))

    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").symlink_to("tokenizer.json")
    with pytest.raises(Misconfigured, match="cannot be read"):
        obtain.import_(home, folder, "tiny-clip", (ENTRY,))


def test_a_folder_with_a_pickle_is_refused_by_its_name(tmp_path: Path, home: Path) -> None:
    folder = weights_folder(tmp_path)
    (folder / WEIGHTS).rename(folder / "open_clip_pytorch_model.bin")

    with pytest.raises(Misconfigured, match="a pickle") as caught:
        obtain.import_(home, folder, "tiny-clip", (ENTRY,))
    assert ".safetensors" in caught.value.hint


def test_a_folder_that_does_not_say_what_it_is_needs_a_name(tmp_path: Path, home: Path) -> None:
    folder = weights_folder(tmp_path)

    with pytest.raises(Misconfigured) as caught:
        obtain.import_(home, folder, "", (ENTRY,))
    assert "--name" in caught.value.hint
    with pytest.raises(Misconfigured, match="'nobody'"):
        obtain.import_(home, folder, "nobody", (ENTRY,))
    with pytest.raises(Misconfigured, match="not a folder"):
        obtain.import_(home, folder / WEIGHTS, "tiny-clip", (ENTRY,))


def test_what_was_built_elsewhere_is_taken_in_with_everything(tmp_path: Path, home: Path) -> None:
    pulled(home)
    built = build_something(home, tmp_path)
    shutil.copytree(home / "tiny-clip", tmp_path / "stick" / "a folder of another name")

    got = obtain.import_(tmp_path / "other", tmp_path / "stick" / "a folder of another name", "", (ENTRY,))

    assert got.manifest == built
    assert {check.state for check in registry.verify(tmp_path / "other") if check.model == "tiny-clip"} == {FileState.OK}


def test_what_was_built_elsewhere_joins_the_same_weights_here(tmp_path: Path, home: Path) -> None:
    pulled(tmp_path / "other")
    pulled(home)
    built = build_something(home, tmp_path)

    got = obtain.import_(tmp_path / "other", home / "tiny-clip", "", (ENTRY,))

    assert got.manifest == built


@pytest.mark.parametrize("file", [WEIGHTS, "tokenizer.json", "image-fp16.onnx"])
def test_a_built_folder_with_an_altered_file_is_refused(tmp_path: Path, home: Path, file: str) -> None:
    pulled(home)
    build_something(home, tmp_path)
    with (home / "tiny-clip" / file).open("r+b") as out:
        out.write(b"x")

    with pytest.raises(Misconfigured, match="manifest beside it"):
        obtain.import_(tmp_path / "other", home / "tiny-clip", "", (ENTRY,))
    assert left_of(tmp_path / "other") == set()


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ('name = "tiny-clip"', 'name = "open-nsfw"'),
        ('name = "tiny-clip"', 'name = "../../etc"'),
        ('role = "source"', 'role = "program"'),
        (f'name = "{WEIGHTS}"', 'name = "../../../etc/passwd.safetensors"'),
        ("[image_text]", "[image_tex]"),
        ("dimensions = 300", "dimensions = 0"),
        (f'revision = "{REVISION}"', "revision = 5"),
        (f'revision = "{REVISION}"', 'revision = "../../elsewhere"'),
        (f'source = "{SOURCE}"', "source = []"),
        ("verified = false", 'verified = "yes"'),
        ("deviation = [", "deviation = [9"),  # pictures would all look alike, and the weights be the right ones
        ("scale = 1", "scale = 9"),
    ],
)
def test_a_foreign_manifest_that_asks_for_something_else_is_refused(tmp_path: Path, home: Path, was: str, becomes: str) -> None:
    pulled(home)
    manifest = home / "tiny-clip" / "manifest.toml"
    assert was in manifest.read_text()
    manifest.write_text(manifest.read_text().replace(was, becomes))

    with pytest.raises(Misconfigured):
        obtain.import_(tmp_path / "other", home / "tiny-clip", "", (ENTRY,))
    assert left_of(tmp_path / "other") == set()


def test_a_foreign_manifest_cannot_call_itself_verified(tmp_path: Path, home: Path) -> None:
    pulled(home)
    manifest = home / "tiny-clip" / "manifest.toml"
    manifest.write_text(manifest.read_text().replace("verified = false", "verified = true"))

    got = obtain.import_(tmp_path / "other", home / "tiny-clip", "", (ENTRY,))

    assert got.manifest.origin == HubOrigin(REPOSITORY, REVISION, verified=False, source=SOURCE)


def test_other_weights_under_an_installed_name_do_not_replace_it(tmp_path: Path, home: Path) -> None:
    pulled(home)
    folder = weights_folder(tmp_path)
    (folder / WEIGHTS).write_bytes(
        safetensors({"visual.proj": (300, 300), "token_embedding.weight": (300, 300), "logit_scale": ()}, seed=2)
    )

    with pytest.raises(Misconfigured, match="other bytes") as caught:
        obtain.import_(home, folder, "tiny-clip", (ENTRY,))
    assert "models remove" in caught.value.hint


def test_a_licence_that_is_not_accepted_stops_an_import(tmp_path: Path, home: Path) -> None:
    def refuse(entry: CatalogueEntry) -> None:
        raise Misconfigured(entry.licence)

    with pytest.raises(Misconfigured):
        obtain.import_(home, weights_folder(tmp_path), "tiny-clip", (ENTRY,), allowed=refuse)
    assert left_of(home) == set()


def test_an_import_onto_a_disk_without_room_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as mounted:
        if not mounted:
            pytest.skip("this user may not mount")

        with pytest.raises(CannotWrite, match="MB free"):
            obtain.import_(tmp_path / "disk", weights_folder(tmp_path), "tiny-clip", (ENTRY,))
        assert left_of(tmp_path / "disk") == set()


# removing


def test_a_removed_model_is_gone_with_what_a_pull_of_it_had(server: HubServer, home: Path) -> None:
    pulled(home)
    (home / ".pulling-tiny-clip").mkdir()
    (home / ".pulling-tiny-clip" / f"{WEIGHTS}.part").write_bytes(bytes(1000))

    assert obtain.remove(home, "tiny-clip") > len(FILES[WEIGHTS])
    assert left_of(home) == set()
    with pytest.raises(Misconfigured, match="not installed"):
        obtain.remove(home, "tiny-clip")


@pytest.mark.parametrize("name", ["open-nsfw", "..", "", "../models", "nobody"])
def test_what_every_scan_needs_and_what_is_no_model_is_not_removed(home: Path, name: str) -> None:
    pulled(home)

    with pytest.raises(Misconfigured):
        obtain.remove(home, name)
    assert left_of(home) == WHOLE


def test_a_folder_that_is_only_linked_to_is_left_where_it_is(tmp_path: Path, home: Path) -> None:
    pulled(tmp_path / "elsewhere")
    home.mkdir()
    (home / "tiny-clip").symlink_to(tmp_path / "elsewhere" / "tiny-clip")

    obtain.remove(home, "tiny-clip")

    assert not (home / "tiny-clip").exists()
    assert left_of(tmp_path / "elsewhere") == WHOLE


def test_the_scale_of_half_precision_weights_is_read_too(server: HubServer, home: Path) -> None:
    for kind, called in (("F16", "fp16"), ("BF16", "bf16"), ("F64", "fp64")):
        server.files[WEIGHTS] = safetensors(
            {"visual.proj": (300, 300), "token_embedding.weight": (300, 300), "logit_scale": ()}, kind=kind
        )

        manifest = obtain.pull(home / kind, ENTRY, hub_of(server)).manifest

        assert manifest.precision == called
        assert manifest.image_text is not None
        assert manifest.image_text.scale == pytest.approx(100.0, rel=0.02)
    assert json.loads(TOKENIZER)
