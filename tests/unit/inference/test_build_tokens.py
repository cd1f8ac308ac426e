"""Words to token numbers with tokenizers made on the spot; `make parity` holds the real ones against open_clip."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from fediwarden.errors import Misconfigured
from fediwarden.inference.build import tokens
from fediwarden.inference.build.architecture import TowerFamily

START, END = 514, 515  # after 256 letters, 256 last letters and two merges


def merges(folder: Path, name: str = "bpe_simple_vocab_16e6.txt.gz") -> Path:
    """The form that open_clip ships: a line of version, then a pair a line."""
    text = '"bpe_simple_vocab_16e6.txt#version: 0.2\nt h\nth e</w>\n'
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def letter(one: str, *, last: bool = False) -> int:
    """The number of a plain letter: OpenAI counts from the exclamation mark."""
    return ord(one) - ord("!") + (256 if last else 0)


def siglip(folder: Path, *words: str, ends: tuple[str, ...] = ("<pad>", "<eos>")) -> Path:
    known = [*ends, "<unk>", *words]
    library = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: number for number, word in enumerate(known)}, unk_token="<unk>")
    )
    library.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    library.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


@pytest.mark.parametrize("name", ["bpe_simple_vocab_16e6.txt.gz", "bpe_simple_vocab_16e6.txt"])
def test_a_text_stands_between_start_and_end_in_pairs_of_letters(tmp_path: Path, name: str) -> None:
    tokenizer = tokens.read([merges(tmp_path, name)], TowerFamily.CLIP)

    found = tokenizer(["The at"], 8)

    assert found.numbers.tolist() == [[START, 513, letter("a"), letter("t", last=True), END, 0, 0, 0]]
    assert found.places.tolist() == [[4]]


def test_a_long_text_is_cut_and_keeps_its_end(tmp_path: Path) -> None:
    tokenizer = tokens.read([merges(tmp_path)], TowerFamily.CLIP)

    found = tokenizer(["the " * 50, ""], 6)

    assert found.numbers.tolist() == [[START, 513, 513, 513, 513, END], [START, END, 0, 0, 0, 0]]
    assert found.places.tolist() == [[5], [1]]


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("  THE\t\n the ", "the the"),
        ("the &amp;lt;&#116;he", "the <the"),
        ("\uff34he\ufb01", "thefi"),
        ("\u2018the\u2019", "'the'"),
    ],
)
def test_case_spaces_escapes_and_forms_are_cleaned_as_open_clip_does(tmp_path: Path, text: str, clean: str) -> None:
    tokenizer = tokens.read([merges(tmp_path)], TowerFamily.CLIP)

    assert np.array_equal(tokenizer([text], 12).numbers, tokenizer([clean], 12).numbers)


def test_bytes_outside_the_alphabet_have_numbers_as_well(tmp_path: Path) -> None:
    tokenizer = tokens.read([merges(tmp_path)], TowerFamily.CLIP)

    (row,) = tokenizer(["größe 木"], 16).numbers.tolist()

    assert len([number for number in row if number]) == 2 + 7 + 3  # start and end, bytes of both words


def test_every_form_of_one_tokenizer_gives_the_same_numbers(tmp_path: Path) -> None:
    one = tokens.read([merges(tmp_path)], TowerFamily.CLIP)
    pieces = list(tokens._bytes_as_letters())
    words = [*pieces, *(f"{piece}</w>" for piece in pieces), "th", "the</w>", "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\nt h\nth e</w>\n", encoding="utf-8")
    text = ["the other man's 3 hats, (all) of them"]

    two = tokens.read([tmp_path / "vocab.json", tmp_path / "merges.txt"], TowerFamily.CLIP)
    two._library.save(str(tmp_path / "tokenizer.json"))
    three = tokens.read([tmp_path / "tokenizer.json"], TowerFamily.CLIP)

    assert np.array_equal(one(text, 77).numbers, two(text, 77).numbers)
    assert np.array_equal(one(text, 77).numbers, three(text, 77).numbers)


def test_siglip_drops_punctuation_and_fills_up_behind_the_end(tmp_path: Path) -> None:
    tokenizer = tokens.read([siglip(tmp_path, "a", "photo", "of", "tree")], TowerFamily.SIGLIP)

    found = tokenizer(["A photo_of: a (tree)!"], 8)

    assert found.numbers.tolist() == [[3, 4, 5, 3, 6, 1, 0, 0]]
    assert found.places.tolist() == [[7]]


def test_the_older_siglip_fills_up_with_its_end(tmp_path: Path) -> None:
    tokenizer = tokens.read([siglip(tmp_path, "tree", ends=("<other>", "</s>"))], TowerFamily.SIGLIP)

    assert tokenizer(["tree"], 4).numbers.tolist() == [[3, 1, 1, 1]]


def test_a_tokenizer_without_the_ends_of_its_family_is_of_another_model(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match="no token for the end of a text"):
        tokens.read([siglip(tmp_path, "tree")], TowerFamily.CLIP)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"\xff\xff"),
        ("bpe_simple_vocab_16e6.txt.gz", b"no gzip"),
        ("bpe_simple_vocab_16e6.txt.gz", gzip.compress(b"first\na b c\n", mtime=0)),
        ("bpe_simple_vocab_16e6.txt.gz", gzip.compress(b"first\na b\n", mtime=0)[:-9]),
        ("bpe_simple_vocab_16e6.txt", b"first\nzz yy\n"),
    ],
)
def test_a_damaged_tokenizer_is_refused(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)

    with pytest.raises(Misconfigured, match="tokenizer"):
        tokens.read([tmp_path / name], TowerFamily.CLIP)


def test_files_that_are_no_tokenizer_are_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"no tokenizer came with the model \(words\.txt\)"):
        tokens.read([tmp_path / "words.txt"], TowerFamily.CLIP)
