"""What bytes are, by their first ones: family and format. It decodes nothing and believes no name or Content-Type."""

import re
import struct
from dataclasses import dataclass
from enum import StrEnum


class FormatFamily(StrEnum):
    """What can be done with a payload."""

    PICTURE = "picture"
    VIDEO = "video"
    ARCHIVE = "archive"
    DOCUMENT = "document"
    SCRIPT = "script"
    AUDIO = "audio"
    TEXT = "text"
    PADDING = "padding"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class What:
    """A family and a short name of the format in it; `opens` says whether this program has a way to open it."""

    family: FormatFamily
    format: str

    @property
    def opens(self) -> bool:
        """Whether a decoder or an opener for this format is part of the program (an extra may be missing)."""
        return self.format in OPENED


OPENED = frozenset(
    {"jpeg", "png", "gif", "webp", "avif", "bmp", "tiff", "mp4", "mov", "webm", "zip", "tar", "gzip", "bzip2", "xz"}
)

_P, _V, _A, _D, _S, _AU = (
    FormatFamily.PICTURE,
    FormatFamily.VIDEO,
    FormatFamily.ARCHIVE,
    FormatFamily.DOCUMENT,
    FormatFamily.SCRIPT,
    FormatFamily.AUDIO,
)

_STARTS: tuple[tuple[bytes, What], ...] = (
    (b"\xff\xd8\xff", What(_P, "jpeg")),
    (b"\x89PNG\r\n\x1a\n", What(_P, "png")),
    (b"GIF87a", What(_P, "gif")),
    (b"GIF89a", What(_P, "gif")),
    (b"II*\0", What(_P, "tiff")),
    (b"MM\0*", What(_P, "tiff")),
    (b"II+\0", What(_P, "tiff")),
    (b"MM\0+", What(_P, "tiff")),
    (b"\xff\x0a", What(_P, "jxl")),
    (b"\0\0\0\x0cJXL ", What(_P, "jxl")),
    (b"\0\0\0\x0cjP  ", What(_P, "jpeg2000")),
    (b"\xff\x4f\xff\x51", What(_P, "jpeg2000")),
    (b"8BPS", What(_P, "psd")),
    (b"\0\0\x01\0", What(_P, "ico")),
    (b"qoif", What(_P, "qoi")),
    (b"\x1aE\xdf\xa3", What(_V, "webm")),
    (b"FLV\x01", What(_V, "flv")),
    (b"\0\0\x01\xba", What(_V, "mpeg")),
    (b"\0\0\x01\xb3", What(_V, "mpeg")),
    (b"0&\xb2u\x8ef\xcf\x11", What(_V, "wmv")),
    (b"OggS", What(_AU, "ogg")),
    (b"fLaC", What(_AU, "flac")),
    (b"ID3", What(_AU, "mp3")),
    (b"PK\x03\x04", What(_A, "zip")),
    (b"PK\x05\x06", What(_A, "zip")),
    (b"PK\x07\x08PK", What(_A, "zip")),
    (b"\x1f\x8b\x08", What(_A, "gzip")),
    (b"\xfd7zXZ\0", What(_A, "xz")),
    (b"7z\xbc\xaf\x27\x1c", What(_A, "7z")),
    (b"Rar!\x1a\x07", What(_A, "rar")),
    (b"\x28\xb5\x2f\xfd", What(_A, "zstd")),
    (b"\x04\x22\x4d\x18", What(_A, "lz4")),
    (b"MSCF\0\0\0\0", What(_A, "cab")),
    (b"!<arch>\n", What(_A, "ar")),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", What(_D, "ole")),
    (b"{\\rtf", What(_D, "rtf")),
    (b"age-encryption.org/", What(_A, "age")),
    (b"-----BEGIN ", What(_A, "pem")),
    (b"Salted__", What(_A, "openssl")),
    (b"\x7fELF", What(_S, "program")),
    (b"#!", What(_S, "script")),
)
_BRANDS: dict[bytes, What] = {
    **dict.fromkeys((b"avif", b"avis"), What(_P, "avif")),
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"), What(_P, "heic")),
    b"crx ": What(_P, "cr3"),
    b"jxl ": What(_P, "jxl"),
    b"qt  ": What(_V, "mov"),
    b"M4A ": What(_AU, "m4a"),
    b"M4B ": What(_AU, "m4a"),
}
_OLD_QUICKTIME = (b"moov", b"mdat", b"wide", b"pnot")
_MARKUP = re.compile(rb"\s*<(\?php|script|html|!doctype html|svg|\?xml|body|iframe)", re.IGNORECASE)
_PADDING = b"\0\xff \r\n\t"
_TEXT = bytes(range(0x20, 0x7F)) + b"\t\r\n\f"


def identify(data: bytes) -> What:
    """What `data` is from its first byte on; never raises."""
    head = data[:64]
    for start, known in _STARTS:
        if head.startswith(start):
            return known
    if what := _by_box(data) or _by_inner_mark(data):
        return what
    if data[:1024].find(b"%PDF-") >= 0:
        return What(_D, "pdf")
    if match := _MARKUP.match(data[:512].lstrip(b"\xef\xbb\xbf")):
        return What(_S, "svg" if match[1].lower() == b"svg" else match[1].decode("ascii").lower().strip("?!"))
    if not data.strip(_PADDING):
        return What(FormatFamily.PADDING, "padding")
    sample = data[:4096]
    if len(sample.translate(None, _TEXT)) * 50 < len(sample):
        return What(FormatFamily.TEXT, "text")
    if b"\0" not in sample and _is_utf8(sample):
        return What(FormatFamily.TEXT, "text")
    return What(FormatFamily.UNKNOWN, "unknown")


def _by_box(data: bytes) -> What | None:
    """ISO base media files by their brands, and QuickTime files from before there were brands."""
    if len(data) < 12:
        return None
    size, kind = struct.unpack_from(">I4s", data)
    if kind == b"ftyp" and (16 <= size <= 4096 or size == 8 + 4):
        brands = [data[8:12], *(data[at : at + 4] for at in range(16, min(size, len(data) - 3), 4))]
        major = _BRANDS.get(brands[0])
        if major is not None and brands[0] in (b"mif1", b"msf1") and any(brand in (b"avif", b"avis") for brand in brands):
            return What(_P, "avif")
        return major or What(_V, "mp4")
    if kind in _OLD_QUICKTIME and (size == 1 or size >= 8):
        return What(_V, "mov")
    return None


def _by_inner_mark(data: bytes) -> What | None:
    """Formats whose mark is not the first thing in the file, or too short to be believed alone."""
    if data[:4] == b"RIFF":
        return {b"WEBP": What(_P, "webp"), b"AVI ": What(_V, "avi"), b"WAVE": What(_AU, "wav")}.get(data[8:12])
    if data[:2] == b"BM" and len(data) >= 26:
        (header,) = struct.unpack_from("<I", data, 14)
        if header in (12, 40, 52, 56, 64, 108, 124):
            return What(_P, "bmp")
    if data[:3] == b"BZh" and data[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
        return What(_A, "bzip2")
    if data[257:262] == b"ustar":
        return What(_A, "tar")
    if data[:2] == b"MZ" and len(data) > 0x40:
        (pe,) = struct.unpack_from("<I", data, 0x3C)
        if data[pe : pe + 4] == b"PE\0\0":
            return What(_S, "program")
    return None


def _is_utf8(sample: bytes) -> bool:
    for cut in range(4):  # a character may be cut off at the end of the sample
        try:
            text = sample[: len(sample) - cut].decode("utf-8")
        except UnicodeDecodeError:
            continue
        return bool(text) and sum(c < " " and c not in "\t\r\n\f" for c in text) * 50 < len(text)
    return False


_MIME: dict[str, frozenset[str]] = {
    "jpeg": frozenset({"image/jpeg", "image/jpg", "image/pjpeg"}),
    "png": frozenset({"image/png", "image/apng", "image/x-png", "image/vnd.mozilla.apng"}),
    "gif": frozenset({"image/gif"}),
    "webp": frozenset({"image/webp"}),
    "avif": frozenset({"image/avif", "image/avif-sequence"}),
    "bmp": frozenset({"image/bmp", "image/x-ms-bmp", "image/x-bmp"}),
    "tiff": frozenset({"image/tiff"}),
    "jxl": frozenset({"image/jxl"}),
    "heic": frozenset({"image/heic", "image/heif", "image/heic-sequence"}),
    "mp4": frozenset({"video/mp4", "video/x-m4v", "audio/mp4", "video/quicktime"}),
    "mov": frozenset({"video/quicktime", "video/mp4"}),
    "webm": frozenset({"video/webm", "video/x-matroska", "audio/webm"}),
}
_ENDINGS: dict[str, frozenset[str]] = {
    "jpeg": frozenset({"jpg", "jpeg", "jpe", "jfif", "pjpeg", "mpo"}),
    "png": frozenset({"png", "apng"}),
    "gif": frozenset({"gif"}),
    "webp": frozenset({"webp"}),
    "avif": frozenset({"avif", "avifs"}),
    "bmp": frozenset({"bmp", "dib"}),
    "tiff": frozenset({"tif", "tiff"}),
    "jxl": frozenset({"jxl"}),
    "heic": frozenset({"heic", "heif", "hif"}),
    "mp4": frozenset({"mp4", "m4v", "mov"}),
    "mov": frozenset({"mov", "qt", "mp4"}),
    "webm": frozenset({"webm", "mkv"}),
}
_KNOWN_ENDINGS = frozenset().union(*_ENDINGS.values()) | {
    "txt",
    "pdf",
    "zip",
    "html",
    "svg",
    "mp3",
    "ogg",
    "json",
    "js",
    "php",
    "exe",
}


def disagreements(what: What, claimed: str, ending: str) -> list[str]:
    """What the Content-Type and the ending of the name claim where that is not what is there; silent claims are none."""
    found = []
    mime = claimed.split(";", 1)[0].strip().lower()
    if (
        mime
        and mime not in ("application/octet-stream", "binary/octet-stream")
        and mime not in _MIME.get(what.format, frozenset())
    ):
        found.append(f"claimed {mime[:80]}, is {what.format}")
    ending = ending.lower()
    if ending in _KNOWN_ENDINGS and ending not in _ENDINGS.get(what.format, frozenset({what.format})):
        found.append(f"named .{ending}, is {what.format}")
    return found
