"""Opens archives with the standard library, entry by entry, within a budget of bytes; writes nothing and follows no link.

Names of entries are labels in a report and never become paths. What is encrypted, too large or of another kind is named
as not opened.
"""

import bz2
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from fediwarden.model import Unopened

ENTRIES = 1000  # of one archive
NAME_LENGTH = 80


@dataclass(slots=True)
class UnpackingBudget:
    """Bytes that may still be unpacked in one look, over all archives in it."""

    left: int


@dataclass(frozen=True, slots=True)
class Member:
    """One unpacked file; `name` is what the archive calls it."""

    name: str
    data: bytes


def entries(data: bytes, format: str, budget: UnpackingBudget) -> Iterator[Member | Unopened]:
    """Every file in the archive, unpacked, or why it was not; never raises for any bytes."""
    match format:
        case "zip":
            yield from _zip(data, budget)
        case "tar":
            yield from _tar(data, budget)
        case "gzip" | "bzip2" | "xz":
            yield _packed(data, format, budget)
        case "7z" | "rar" | "zstd" | "lz4" | "cab" | "ar":
            yield Unopened("", "unsupported", len(data))
        case _:  # age, pem, openssl: their whole purpose is that nobody can look
            yield Unopened("", "encrypted", len(data))


def _bounded(stream: IO[bytes], name: str, size: int, budget: UnpackingBudget) -> Member | Unopened:
    """Read one stream within the budget; one byte more than is left shows that it does not fit."""
    if size > budget.left:
        return Unopened(name, "too large", size)
    data = stream.read(budget.left + 1)
    if len(data) > budget.left:
        budget.left = 0
        return Unopened(name, "too large", len(data))
    budget.left -= len(data)
    return Member(name, data)


def _zip(data: bytes, budget: UnpackingBudget) -> Iterator[Member | Unopened]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError, IndexError, OverflowError):
        yield Unopened("", "broken", len(data))
        return
    with archive:
        for number, info in enumerate(archive.infolist()):
            name = info.filename[:NAME_LENGTH]
            if number >= ENTRIES:
                yield Unopened("", "too many", len(archive.infolist()) - ENTRIES)
                return
            if info.flag_bits & 0x41:  # encrypted, or strongly so
                yield Unopened(name, "encrypted", info.file_size)
                continue
            if info.is_dir():
                continue
            try:
                with archive.open(info) as stream:
                    yield _bounded(stream, name, info.file_size, budget)
            except (NotImplementedError, RuntimeError):  # a way of packing that is not ours, or a password
                yield Unopened(name, "unsupported", info.file_size)
            except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, ValueError, OSError, EOFError):
                yield Unopened(name, "broken", info.file_size)


def _tar(data: bytes, budget: UnpackingBudget) -> Iterator[Member | Unopened]:
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for number, info in enumerate(archive):
                if number >= ENTRIES:
                    yield Unopened("", "too many", 0)
                    return
                stream = archive.extractfile(info) if info.isreg() else None
                if stream is not None:
                    yield _bounded(stream, info.name[:NAME_LENGTH], info.size, budget)
    except (tarfile.TarError, ValueError, OSError, EOFError, OverflowError, RecursionError):
        yield Unopened("", "broken", len(data))


def _packed(data: bytes, format: str, budget: UnpackingBudget) -> Member | Unopened:
    """One compressed stream; trailing bytes behind it are ignored, as the usual tools do."""
    unpacker: bz2.BZ2Decompressor | lzma.LZMADecompressor | None
    try:
        if format == "gzip":
            deflated = zlib.decompressobj(wbits=31)
            unpacked = deflated.decompress(data, budget.left + 1)
            whole = deflated.eof
        else:
            unpacker = bz2.BZ2Decompressor() if format == "bzip2" else lzma.LZMADecompressor(memlimit=256 << 20)
            unpacked = unpacker.decompress(data, budget.left + 1)
            whole = unpacker.eof
    except (zlib.error, OSError, lzma.LZMAError, EOFError, ValueError):
        return Unopened("", "broken", len(data))
    if len(unpacked) > budget.left:
        budget.left = 0
        return Unopened("", "too large", len(data))
    if not whole and not unpacked:
        return Unopened("", "broken", len(data))
    budget.left -= len(unpacked)
    return Member("", unpacked)
