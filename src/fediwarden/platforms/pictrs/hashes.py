"""The names that pict-rs 0.5 gives to contents: pure functions of the stored bytes, so that bytes in hand tell what to ask for.

A hash is 39 bytes: SHA-256 of the stored bytes, their number (6 bytes, big-endian), and a byte for the format
(pict-rs 0.5, `src/repo/hash.rs` and `src/formats.rs`; read in its source, not run against it). pict-rs 0.4 kept the SHA-256 alone.
"""

import binascii
import re
from base64 import b64decode, b64encode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Self

from fediwarden.model import Sha256

FORMATS = (
    "image/apng",
    "image/avif",  # an animation; pict-rs tells the two apart by this byte only
    "image/gif",
    "image/webp",  # an animation
    "image/avif",
    "image/jpeg",
    "image/jxl",
    "image/png",
    "image/webp",
    "video/mp4",
    "video/webm",
)
"""Content-Type by format byte."""

LENGTH = 39
KEY = re.compile(r"((?:[0-9a-f]{2}/){10})([0-9a-f]{12})(\.[a-z0-9]+)?")


@dataclass(frozen=True, slots=True)
class Hash:
    """One content as pict-rs 0.5 names it. `hex` is the key of the item in our ledger."""

    sha256: Sha256
    size: int  # bytes
    format: int  # index into FORMATS

    @classmethod
    def of(cls, data: bytes, format: int) -> Self:
        """The hash of stored bytes."""
        return cls(Sha256(sha256(data).hexdigest()), len(data), format)

    @classmethod
    def from_hex(cls, text: str) -> Self:
        """From the 78 digits of `/internal/hashes`. Raises: ValueError."""
        return cls._parse(bytes.fromhex(text))

    @classmethod
    def from_base64(cls, text: str) -> Self:
        """From `hashes.hash` of the PostgreSQL repository. Raises: ValueError."""
        try:
            return cls._parse(b64decode(text, validate=True))
        except binascii.Error as error:
            raise ValueError(f"not a pict-rs hash: {text[:60]!r}") from error

    @classmethod
    def _parse(cls, raw: bytes) -> Self:
        if len(raw) != LENGTH or raw[38] >= len(FORMATS):
            raise ValueError(f"not a pict-rs hash: {len(raw)} bytes")
        return cls(Sha256(raw[:32].hex()), int.from_bytes(raw[32:38], "big"), raw[38])

    def __bytes__(self) -> bytes:
        return bytes.fromhex(self.sha256) + self.size.to_bytes(6, "big") + bytes([self.format])

    @property
    def hex(self) -> str:
        """As `/internal/hashes` shows it."""
        return bytes(self).hex()

    @property
    def slug(self) -> str:
        """As `/internal/hashes?slug=` takes it."""
        return urlsafe_b64encode(bytes(self)).decode()

    @property
    def base64(self) -> str:
        """As the PostgreSQL repository keeps it."""
        return b64encode(bytes(self)).decode()

    @property
    def content_type(self) -> str:
        """What pict-rs serves it as, and posts to a validator."""
        return FORMATS[self.format]


def formats_of(content_type: str) -> tuple[int, ...]:
    """The format bytes that a Content-Type may stand for, the likelier first; every one where it is none of pict-rs'."""
    bare = content_type.partition(";")[0].strip().lower()
    found = tuple(number for number in reversed(range(len(FORMATS))) if FORMATS[number] == bare)
    return found or tuple(reversed(range(len(FORMATS))))


def namesakes(name: bytes) -> tuple[bytes, ...]:
    """The hash, and what the same bytes are called where pict-rs counts them among the animations, or the stills, of that type."""
    if len(name) != LENGTH or name[38] >= len(FORMATS):
        return (name,)
    others = [number for number in formats_of(FORMATS[name[38]]) if number != name[38]]
    return (name, *(name[:38] + bytes([number]) for number in others))


def key_time(key: str) -> datetime | None:
    """When an object of pict-rs 0.5.7 or newer was made, told by its key (a version 7 UUID in folders); None for other keys."""
    match = KEY.fullmatch(key)
    if match is None:
        return None
    digits = match[1].replace("/", "") + match[2]
    if digits[12] != "7":
        return None
    return datetime.fromtimestamp(int(digits[:12], 16) / 1000, UTC)
