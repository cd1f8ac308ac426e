"""The models that are known by name, the program's own list and an operator's."""

from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.hub_server import as_catalogue, tiny

from fediwarden.errors import Misconfigured
from fediwarden.inference import catalogue
from fediwarden.inference.catalogue import CatalogueEntry
from fediwarden.inference.manifest import Role

SHIPPED = {entry.name: entry for entry in catalogue.shipped()}


@pytest.mark.parametrize("entry", SHIPPED.values(), ids=list(SHIPPED))
def test_every_entry_says_where_it_is_from_what_it_may_be_used_for_and_what_it_cannot_see(entry: CatalogueEntry) -> None:
    assert entry.licence
    assert entry.about
    assert entry.accuracy_source
    assert 50 < entry.accuracy < 90
    assert any("age" in words for words in entry.blind)
    assert [file.role for file in entry.files].count(Role.TOKENIZER) >= 1
    assert any(tensor.shape[:1] == (entry.dimensions,) or tensor.shape[-1:] == (entry.dimensions,) for tensor in entry.tensors)


@pytest.mark.parametrize("entry", SHIPPED.values(), ids=list(SHIPPED))
def test_the_sizes_of_weights_are_those_of_their_numbers(entry: CatalogueEntry) -> None:
    (weights,) = (file for file in entry.files if file.role is Role.SOURCE)

    assert weights.about_mb * 1e6 == pytest.approx(entry.values * 4, rel=0.01)


def test_the_one_that_fedi_safety_uses_and_a_small_one_are_there() -> None:
    large, small = SHIPPED["clip-vit-l-14"], SHIPPED["clip-vit-b-32"]

    assert (large.architecture, large.dimensions, large.image.size) == ("ViT-L-14-quickgelu", 768, 224)
    assert small.values < large.values / 2
    assert {entry.image.resize for entry in (large, small)} == {"longest"}  # a crop in the middle would hide the rest


def test_a_licence_for_research_only_is_marked() -> None:
    assert [name for name, entry in SHIPPED.items() if entry.research_only] == ["mobileclip2-s2"]


def test_nothing_is_called_verified_that_nobody_had_in_hand() -> None:
    assert all(entry.revision or not entry.verified for entry in SHIPPED.values())
    assert all((file.sha256 == "") == (file.size == 0) for entry in SHIPPED.values() for file in entry.files)


def test_an_operators_own_list_adds_and_stands_over(tmp_path: Path) -> None:
    mine, _ = tiny()
    own = tmp_path / "catalogue.toml"
    own.write_text(as_catalogue(mine) + "\n" + as_catalogue(replace(mine, name="clip-vit-b-32")))

    entries = catalogue.known(own)

    assert [entry.name for entry in entries] == sorted({*SHIPPED, "tiny-clip"})
    assert catalogue.find("tiny-clip", entries) == mine
    assert catalogue.find("clip-vit-b-32", entries).architecture == "Tiny"
    assert catalogue.known(tmp_path / "none.toml") == catalogue.known()


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ('name = "tiny-clip"', 'name = "../tiny"'),
        ('repository = "somebody/tiny-clip"', 'repository = "../../etc"'),
        ('revision = ""', 'revision = "main"'),
        ('role = "source"', 'role = "image"'),
        ('role = "tokenizer"', 'role = "source"'),
        ('name = "tokenizer.json"', 'name = "open_clip_model.safetensors"'),
        ('name = "tokenizer.json"', 'name = "../../tokenizer.json"'),
        ('sha256 = ""', 'sha256 = "abc"'),
        ("dimensions = 300", "dimensions = -1"),
        ('resize = "longest"', 'resize = "crop"'),
        ('licence = "none"', "licence = 5"),
        ("[[model]]", "[model]"),
        ("[[model]]", "[[model"),
        ("blind = ", "blid = "),
    ],
)
def test_an_own_list_that_cannot_be_used_is_said_with_its_path(tmp_path: Path, was: str, becomes: str) -> None:
    own = tmp_path / "catalogue.toml"
    text = as_catalogue(tiny()[0])
    own.write_text(text.replace(was, becomes))

    assert was in text
    with pytest.raises(Misconfigured, match=r"catalogue\.toml"):
        catalogue.known(own)


def test_a_name_that_is_not_known_is_answered_with_those_that_are() -> None:
    with pytest.raises(Misconfigured) as caught:
        catalogue.find("clip", catalogue.shipped())
    assert "clip-vit-l-14" in caught.value.hint
