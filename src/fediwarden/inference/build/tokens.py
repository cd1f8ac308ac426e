"""Words to token numbers, as open_clip makes them, with the tokenizer file that came with a model; embeds nothing."""

import gzip
import html
import json
import string
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fediwarden.errors import Misconfigured
from fediwarden.inference.build.architecture import TowerFamily

_CLIP_ENDS = (("<|startoftext|>", "<|endoftext|>"), ("<start_of_text>", "<end_of_text>"))
_CLIP_MERGES = 49152 - 256 - 2  # what OpenAI's file holds besides is not used
_CLIP_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_LARGEST = 256 << 20  # bytes of a tokenizer file
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
# open_clip mends text with ftfy; of that this is what can happen to words in a UTF-8 file: letters joined into one, full-width
# forms, bent quotation marks
_JOINED = (
    *range(0x1C4, 0x1CD),
    *range(0x1F1, 0x1F4),
    0x132,
    0x133,
    0x149,
    *range(0xFB00, 0xFB07),
    *range(0xFF01, 0xFFEF),
    0x3000,
)
_MENDED = {code: unicodedata.normalize("NFKC", chr(code)) for code in _JOINED}
_QUOTES = {0x2BC: "'"} | dict.fromkeys(range(0x2018, 0x201C), "'") | dict.fromkeys(range(0x201C, 0x2020), '"')


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the text tower is given."""

    numbers: NDArray[np.int64]  # (texts, length)
    places: NDArray[np.int64]  # (texts, 1): the token that becomes the text's embedding


class Tokenizer:
    """The tokenizer of one model."""

    def __init__(self, library: Any, family: TowerFamily, start: int | None, end: int, padding: int) -> None:
        """Use `read` instead."""
        self._library = library
        self._family = family
        self._start, self._end, self._padding = start, end, padding

    def __call__(self, texts: Sequence[str], length: int) -> Tokens:
        """The tokens of each text, cut or filled to `length`; the end is kept when a text is cut."""
        clean = _canonical if self._family is TowerFamily.SIGLIP else _lower
        rows = np.full((len(texts), length), self._padding, np.int64)
        places = np.full((len(texts), 1), length - 1, np.int64)
        for row, text in enumerate(texts):
            before = [] if self._start is None else [self._start]
            found = self._library.encode(clean(text), add_special_tokens=False).ids
            numbers = [*before, *found[: length - len(before) - 1], self._end]
            rows[row, : len(numbers)] = numbers
            if self._family is TowerFamily.CLIP:
                places[row] = len(numbers) - 1
        return Tokens(rows, places)


def read(paths: Sequence[Path], family: TowerFamily) -> Tokenizer:
    """The tokenizer in a model's tokenizer files: tokenizer.json, vocab.json and merges.txt, or the merges of open_clip.

    Raises: Misconfigured when there is none, or it is not of this family.
    """
    try:
        import tokenizers
    except ImportError as error:
        raise Misconfigured("embedding words needs the package tokenizers", hint="pip install 'fediwarden[build]'") from error
    by_name = {path.name: path for path in paths}
    try:
        library = _library(tokenizers, by_name)
    except Misconfigured:
        raise
    except Exception as error:  # the library raises plain Exception for a file it cannot use
        names = ", ".join(by_name)
        raise Misconfigured(f"the tokenizer cannot be used ({names}): {error}", hint="pull or import the model again") from error
    library.no_padding()
    library.no_truncation()
    if family is TowerFamily.SIGLIP:
        end = library.token_to_id("<eos>")  # Gemma's; the older one is T5's, which fills up with its end as well
        padding = library.token_to_id("<pad>") if end is not None else library.token_to_id("</s>")
        end = padding if end is None else end
        if end is not None and padding is not None:
            return Tokenizer(library, family, None, end, padding)
    else:
        for start, end in (tuple(map(library.token_to_id, ends)) for ends in _CLIP_ENDS):
            if start is not None and end is not None:
                return Tokenizer(library, family, start, end, 0)
    raise Misconfigured(
        "the tokenizer has no token for the end of a text", hint="it belongs to another model: pull them together"
    )


def _library(tokenizers: Any, by_name: dict[str, Path]) -> Any:
    if path := by_name.get("tokenizer.json"):
        return tokenizers.Tokenizer.from_str(_text(path))
    if (vocabulary := by_name.get("vocab.json")) and (merges := by_name.get("merges.txt")):
        pairs = [_pair(line) for line in _text(merges).splitlines() if line and not line.startswith("#version")]
        return _clip(tokenizers, {str(word): int(number) for word, number in json.loads(_text(vocabulary)).items()}, pairs)
    for name, path in by_name.items():
        if name.startswith("bpe_simple_vocab") and name.endswith((".txt.gz", ".txt")):
            pairs = [_pair(line) for line in _text(path).split("\n")[1 : _CLIP_MERGES + 1] if line]
            letters = list(_bytes_as_letters())
            words = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in pairs), *_CLIP_ENDS[0]]
            return _clip(tokenizers, {word: number for number, word in enumerate(words)}, pairs)
    raise Misconfigured(
        f"no tokenizer came with the model ({', '.join(by_name) or 'no file'})",
        hint="pull it again, or import a folder that holds its tokenizer.json (or vocab.json and merges.txt, "
        "or open_clip's bpe_simple_vocab_16e6.txt.gz)",
    )


def _clip(tokenizers: Any, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> Any:
    """CLIP's byte pairs, whose last piece of a word is marked."""
    library = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>", continuing_subword_prefix="")
    )
    words = tokenizers.pre_tokenizers.Split(tokenizers.Regex(_CLIP_WORDS), behavior="removed", invert=True)
    letters = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([words, letters])
    return library


def _bytes_as_letters() -> tuple[str, ...]:
    """The letter that stands for each byte in a byte-level vocabulary, in the order of OpenAI's numbers."""
    plain = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    others = [chr(256 + number) for number in range(256 - len(plain))]
    return (*map(chr, plain), *others)


def _pair(line: str) -> tuple[str, str]:
    first, second = line.split()
    return first, second


def _text(path: Path) -> str:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as source:
            data = source.read(_LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise Misconfigured(
            f"the tokenizer {path.name} cannot be read: {error}", hint="pull or import the model again"
        ) from error
    if len(data) > _LARGEST:
        raise Misconfigured(f"the tokenizer {path.name} is larger than any tokenizer", hint="pull or import the model again")
    return data.decode("utf-8")


def _basic(text: str) -> str:
    plain = unicodedata.normalize("NFC", text.translate(_MENDED).translate(_QUOTES))
    return html.unescape(html.unescape(plain)).strip()


def _lower(text: str) -> str:
    return " ".join(_basic(text).split()).lower()


def _canonical(text: str) -> str:
    return " ".join(_basic(text).replace("_", " ").translate(_NO_PUNCTUATION).lower().split())
