"""Where a picture or a video ends, and what lies in and behind it; walks lengths and markers, decodes no pixel.

No library found tells the exact end of a picture, which is what separates it from bytes that were put behind it.
Layouts: ITU T.81 annex B (JPEG), PNG third edition, GIF89a, RIFF/WebP container, ISO/IEC 14496-12 boxes, TIFF 6.0 and
BigTIFF, the Windows bitmap headers, EBML/Matroska (RFC 8794, RFC 9559).
"""

import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from fediwarden.model import Note, Unopened

PARTS = 200  # places inside one picture that are kept for opening; what is over counts as not opened
TEXT_BOUND = 4 << 20  # bytes a compressed text inside a PNG may unpack to


@dataclass(slots=True)
class Section:
    """A place inside the object that is not the picture itself. `known` parts belong there by the standard."""

    where: str
    data: bytes
    known: bool = False


@dataclass(slots=True)
class Anatomy:
    """What a walk found. `end` is None where the structure breaks off or cannot be told."""

    end: int | None = None
    truncated: bool = False
    width: int = 0
    height: int = 0
    frames: int = 1
    delays: list[float] = field(default_factory=list)  # seconds, where the format lists them
    parts: list[Section] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    unopened: list[Unopened] = field(default_factory=list)
    essential: bytes | None = None  # the same picture without side data, where there was side data worth leaving out

    def part(self, where: str, data: bytes, *, known: bool = False) -> None:
        """Keep a place for opening; padding and the very small are not worth it."""
        if len(data) < 24 or not data.strip(b"\0\xff \r\n\t"):
            return
        if len(self.parts) < PARTS:
            self.parts.append(Section(where, data, known))
        elif not known:
            self.unopened.append(Unopened(where, "too many", len(data)))

    def note(self, what: str, where: str, size: int, detail: str = "") -> None:
        """Keep a fact, up to a bound that no honest picture reaches."""
        if len(self.notes) < PARTS:
            self.notes.append(Note(what, where, size, detail))


def walk(data: bytes, format: str) -> Anatomy:
    """The anatomy of `data`, which `identify` says is of this format; never raises for any bytes."""
    found = Anatomy()
    walker = WALKERS.get(format)
    if walker is None:
        return found
    try:
        walker(data, found)
    except (IndexError, struct.error):
        found.end, found.truncated = None, True
    if found.end is not None and found.end < len(data):
        tail = data[found.end :]
        if tail.strip(b"\0\xff \r\n\t"):
            found.note("trailing", "trailing", len(tail))
            found.part("trailing", tail)
            if len(tail) < 24:
                found.notes[-1] = Note("trailing", "trailing", len(tail), "short")
        else:
            found.note("trailing", "trailing", len(tail), "padding")
    return found


# --- JPEG ---------------------------------------------------------------------------------------------------------------

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # of a JPEG, in coded data
_JPEG_KNOWN = (
    b"JFIF\0",
    b"JFXX\0",
    b"Exif\0",
    b"http://ns.adobe.com/",
    b"ICC_PROFILE\0",
    b"MPF\0",
    b"FPXR\0",
    b"urn:iso:std:iso:ts:21496",
    b"JP",
    b"HDR_RI",
    b"Ducky",
    b"Photoshop 3.0\0",
    b"Adobe",
    b"AROT",
    b"Stim",
    b"Meta",
    b"XMP",
)
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg(data: bytes, found: Anatomy) -> None:
    at = 2
    while True:
        if data[at] != 0xFF:
            at = data.find(b"\xff", at)  # decoders skip rubbish between segments
            if at < 0:
                found.truncated = True
                return
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker == 0xD9:
            found.end = at
            return
        if marker in (0x00, 0x01, 0xD8) or 0xD0 <= marker <= 0xD7:
            continue
        (length,) = struct.unpack_from(">H", data, at)
        if at + length > len(data):
            found.truncated = True
            return
        body = data[at + 2 : at + length] if marker >= 0xE0 else b""
        if marker in _SOF and length >= 8 and not found.width:
            found.height, found.width = struct.unpack_from(">HH", data, at + 3)
        elif marker == 0xFE:
            found.note("comment", "COM", len(body))
            found.part("COM", body)
        elif 0xE0 <= marker <= 0xEF:
            _jpeg_segment(f"APP{marker - 0xE0}", body, found)
        at += max(2, length)
        if marker == 0xDA:
            at = _after_scan(data, at)
            if at < 0:
                found.truncated = True
                return


def _jpeg_segment(name: str, body: bytes, found: Anatomy) -> None:
    known = body.startswith(_JPEG_KNOWN)
    if body.startswith(b"MPF\0"):
        found.note("segment", name, len(body), "list of further pictures")
    elif b"MotionPhoto" in body or b"MicroVideo" in body:
        found.note("segment", name, len(body), "motion photo")
    elif not known:
        found.note("segment", name, len(body), _label(body))
    found.part(name, body, known=known)


def _after_scan(data: bytes, at: int) -> int:
    """The next marker that is neither a stuffed byte nor a restart, or -1."""
    found = _MARKER.search(data, at)
    return found.start() if found else -1


def _label(body: bytes) -> str:
    """The name by which a private segment introduces itself."""
    name = body[:24].split(b"\0", 1)[0]
    return name.decode("ascii", "replace") if name.isascii() and name.decode("ascii").isprintable() else ""


# --- PNG ----------------------------------------------------------------------------------------------------------------

_PNG_NEEDED = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"eXIf"})
_PNG_PLAIN = frozenset(
    {b"cHRM", b"gAMA", b"iCCP", b"sBIT", b"sRGB", b"bKGD", b"hIST", b"pHYs", b"sPLT", b"tIME", b"cICP", b"mDCV", b"cLLI", b"caBX"}
)
_PNG_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt"})


def _png(data: bytes, found: Anatomy) -> None:
    at, kept, left_out = 8, [data[:8]], False
    while True:
        if at + 12 > len(data):
            found.truncated = True
            break
        size, kind = struct.unpack_from(">I4s", data, at)
        last = at + 12 + size
        if last > len(data):
            found.truncated = True
            if kind in _PNG_NEEDED:
                kept.append(data[at:])
            break
        body = data[at + 8 : at + 8 + size] if kind not in (b"IDAT", b"fdAT") else b""
        if kind in _PNG_NEEDED:
            kept.append(data[at:last])
        else:
            left_out = True
        if kind == b"IHDR":
            found.width, found.height = struct.unpack_from(">II", body)
        elif kind == b"acTL":
            found.frames = struct.unpack_from(">I", body)[0]
        elif kind == b"fcTL" and size >= 26:
            top, bottom = struct.unpack_from(">HH", body, 20)
            found.delays.append(top / (bottom or 100))
        elif kind in _PNG_TEXT or kind == b"iCCP":
            _png_text(kind, body, found)
        elif kind == b"eXIf":
            found.part("eXIf", body, known=True)
        elif kind not in _PNG_NEEDED and kind not in _PNG_PLAIN:
            name = kind.decode("ascii", "replace")
            found.note("chunk", name, size)
            found.part(name, body)
        at = last
        if kind == b"IEND":
            found.end = at
            break
    if left_out:
        found.essential = b"".join(kept)


def _png_text(kind: bytes, body: bytes, found: Anatomy) -> None:
    name = kind.decode("ascii")
    if kind != b"iCCP":
        found.note("comment", name, len(body))
    _, _, text = body.partition(b"\0")
    packed = kind in (b"zTXt", b"iCCP")
    if kind == b"iTXt" and len(text) > 2:
        packed = text[0] == 1
        text = text[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif packed:
        text = text[1:]
    if packed:
        unpacker = zlib.decompressobj()
        try:
            text = unpacker.decompress(text, TEXT_BOUND)
        except zlib.error:
            found.part(name, text)
            return
        if unpacker.unconsumed_tail:
            found.unopened.append(Unopened(name, "too large", len(body)))
    found.part(name, text, known=True)


# --- GIF ----------------------------------------------------------------------------------------------------------------


def _gif(data: bytes, found: Anatomy) -> None:
    found.width, found.height = struct.unpack_from("<HH", data, 6)
    if data[6:8] in (b"/*", b"//"):
        found.note("script", "header", 0, "the size in the header reads as the start of a script")
    flags, at, found.frames, delay = data[10], 13, 0, 0.0
    at += 3 << ((flags & 7) + 1) if flags & 0x80 else 0
    while True:
        block = data[at]
        if block == 0x3B:
            found.end = at + 1
            return
        if block == 0x21:
            label = data[at + 1]
            if label == 0xF9 and data[at + 2] >= 4:
                delay = struct.unpack_from("<H", data, at + 4)[0] / 100
            at = _gif_extension(data, at, label, found)
        elif block == 0x2C:
            local = data[at + 9]
            at += 10 + (3 << ((local & 7) + 1) if local & 0x80 else 0) + 1
            found.frames += 1
            found.delays.append(delay)
            delay = 0.0
            at = _gif_blocks(data, at)
        elif block == 0:
            at += 1  # decoders skip these
        else:
            found.truncated = True
            return


def _gif_blocks(data: bytes, at: int) -> int:
    while (size := data[at]) != 0:
        at += 1 + size
    return at + 1


def _gif_extension(data: bytes, at: int, label: int, found: Anatomy) -> int:
    end = _gif_blocks(data, at + 2)
    if label == 0xF9 or end - at < 32:
        return end
    body, inner = bytearray(), at + 2
    name = "comment" if label == 0xFE else f"extension {label:02x}"
    known = False
    if label == 0xFF:
        name = data[at + 3 : at + 14].decode("ascii", "replace")
        known = name.startswith(("NETSCAPE", "ANIMEXTS", "XMP Data", "ICCRGBG1"))
    while (size := data[inner]) != 0:
        body += data[inner + 1 : inner + 1 + size]
        inner += 1 + size
    if label == 0xFE:
        found.note("comment", "comment", len(body))
    elif not known:
        found.note("segment", name, len(body))
    found.part(name, bytes(body), known=known)
    return end


# --- WebP ---------------------------------------------------------------------------------------------------------------

_WEBP_KNOWN = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"ICCP", b"EXIF", b"XMP "})


def _webp(data: bytes, found: Anatomy) -> None:
    (size,) = struct.unpack_from("<I", data, 4)
    end = 8 + size + (size & 1)
    if end > len(data) + 1:
        found.truncated = True
    else:
        found.end = min(end, len(data))
    at, found.frames = 12, 0
    limit = min(end, len(data))
    while at + 8 <= limit:
        kind, length = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : min(at + 8 + length, limit)] if kind not in (b"VP8 ", b"VP8L", b"ALPH", b"ANMF") else b""
        if kind == b"VP8X" and len(body) >= 10:
            found.width = 1 + int.from_bytes(body[4:7], "little")
            found.height = 1 + int.from_bytes(body[7:10], "little")
        elif kind == b"VP8 " and not found.width:
            found.width, found.height = (v & 0x3FFF for v in struct.unpack_from("<HH", data, at + 14))
        elif kind == b"VP8L" and not found.width:
            bits = struct.unpack_from("<I", data, at + 9)[0]
            found.width, found.height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        elif kind == b"ANMF" and length >= 16:
            found.frames += 1
            found.delays.append(int.from_bytes(data[at + 20 : at + 23], "little") / 1000)
        elif kind in (b"EXIF", b"XMP ", b"ICCP"):
            found.part(kind.decode().strip(), body, known=True)
        if kind not in _WEBP_KNOWN:
            name = kind.decode("ascii", "replace")
            found.note("chunk", name, length)
            found.part(name, body)
        at += 8 + length + (length & 1)
    found.frames = max(1, found.frames)


# --- boxes: AVIF, MP4, MOV ----------------------------------------------------------------------------------------------

_BOXES = frozenset(
    b"ftyp meta mdat moov free skip moof mfra sidx uuid idat wide pdin styp pnot PICT emsg prft mini ssix ctab imda".split()
)


def _boxes(data: bytes, found: Anatomy) -> None:
    at, film, media = 0, False, False
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        header = 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + 8)
            header = 16
        elif size == 0:
            size = len(data) - at
        if kind not in _BOXES or size < header:
            break
        if at + size > len(data):
            found.truncated = True
            found.end = None
            return
        film, media = film or kind in (b"moov", b"meta", b"mini"), media or kind in (b"mdat", b"idat", b"imda")
        if kind in (b"free", b"skip", b"uuid", b"wide"):
            name, body = kind.decode(), data[at + header : at + size]
            if len(body) >= 64 and body.strip(b"\0"):
                found.note("chunk", name, len(body))
            found.part(name, body)
        at += size
    found.end = at
    if not film:
        found.truncated = True  # what says how to show the rest never came


# --- EBML: WebM and Matroska --------------------------------------------------------------------------------------------

_SEGMENT, _CLUSTER, _ATTACHMENTS, _VOID, _EBML = 0x18538067, 0x1F43B675, 0x1941A469, 0xEC, 0x1A45DFA3


def _ebml(data: bytes, found: Anatomy) -> None:
    at, segment_end = 0, None
    while at < len(data):
        if segment_end is not None and at >= segment_end:
            break
        start = at
        try:
            number, at = _vint(data, at, keep_mark=True)
            size, at = _vint(data, at, keep_mark=False)
        except IndexError:
            if segment_end is None and start == 0:
                raise
            at = start
            break
        if number == _SEGMENT:
            segment_end = len(data) if size < 0 else at + size
            if segment_end > len(data):
                found.truncated = True
                segment_end = len(data)
            continue
        if segment_end is None and number != _EBML:
            at = start
            break
        if size < 0:
            if number == _CLUSTER:
                continue  # of unknown length: its children follow in line
            found.truncated = True
            return
        if at + size > len(data):
            found.truncated = True
            return
        if number in (_ATTACHMENTS, _VOID):
            name = "attachments" if number == _ATTACHMENTS else "void"
            if number == _ATTACHMENTS:
                found.note("chunk", name, size)
            found.part(name, data[at : at + size])
        at += size
    found.end = None if found.truncated else at


def _vint(data: bytes, at: int, *, keep_mark: bool) -> tuple[int, int]:
    """A variable-length number and where it ends; -1 for "unknown length"; IndexError where there is none."""
    first = data[at]
    length = 9 - first.bit_length()
    if length > 8 or at + length > len(data):
        raise IndexError(at)
    value = int.from_bytes(data[at : at + length], "big")
    if keep_mark:
        return value, at + length
    value &= (1 << 7 * length) - 1
    return (-1 if value == (1 << 7 * length) - 1 else value), at + length


# --- BMP and TIFF -------------------------------------------------------------------------------------------------------


def _bmp(data: bytes, found: Anatomy) -> None:
    total, _, pixels, header = struct.unpack_from("<IIII", data, 2)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        packing, packed = 0, 0
    else:
        width, height, _, bits, packing, packed = struct.unpack_from("<iiHHII", data, 18)
    found.width, found.height = abs(width), abs(height)
    if data[2:4] == b"/*":
        found.note("script", "header", 0, "the size in the header reads as the start of a script")
    if packing in (0, 3, 6):
        end = pixels + (found.width * bits + 31) // 32 * 4 * found.height
    else:
        end = pixels + packed if packed else total
    found.truncated = end > len(data)
    found.end = None if found.truncated else max(end, pixels)


_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_TIFF_FURTHER = frozenset({330, 34665, 34853, 40965})  # SubIFDs, Exif, GPS, interoperability
_TIFF_DATA = {273: 279, 324: 325, 513: 514, 288: 289}  # offsets of strips, tiles, thumbnails, free space: their lengths


def _tiff(data: bytes, found: Anatomy) -> None:
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    offset, count, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    first = struct.unpack_from(order + offset, data, 8 if big else 4)[0]
    queue, seen, end, chain = [first], set[int](), 8, 0
    main = {first}
    while queue and len(seen) < 2000:
        at = queue.pop()
        if at in seen or at == 0:
            continue
        seen.add(at)
        (entries,) = struct.unpack_from(order + count, data, at)
        at_entry = at + struct.calcsize(count)
        if entries > 4096:
            found.truncated = True
            return
        values: dict[int, list[int]] = {}
        for n in range(entries):
            spot = at_entry + n * entry
            tag, kind = struct.unpack_from(order + "HH", data, spot)
            (amount,) = struct.unpack_from(order + offset, data, spot + 4)
            size = _TIFF_SIZES.get(kind, 1) * amount
            field_at = spot + 4 + struct.calcsize(offset)
            inline = size <= struct.calcsize(offset)
            where = field_at if inline else struct.unpack_from(order + offset, data, field_at)[0]
            if where + size <= len(data):
                end = max(end, where + size)
            else:
                found.truncated = True
            if (
                tag in (256, 257, *_TIFF_FURTHER, *_TIFF_DATA, *_TIFF_DATA.values())
                and kind in (3, 4, 13, 16, 18)
                and amount <= 1 << 16
            ):
                letter = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}[kind]
                values[tag] = list(struct.unpack_from(f"{order}{amount}{letter}", data, where))
        after = at_entry + entries * entry
        (following,) = struct.unpack_from(order + offset, data, after)
        end = max(end, after + struct.calcsize(offset))
        if at in main:
            chain += 1
            if chain == 1:
                found.width, found.height = values.get(256, [0])[0], values.get(257, [0])[0]
            main.add(following)
        queue.append(following)
        for tag in _TIFF_FURTHER:
            for sub in values.get(tag, []):
                queue.append(sub)
                if tag == 330 and not big and 8 <= sub < len(data):
                    found.part("SubIFD", data[:4] + struct.pack(order + "I", sub) + data[8:], known=True)
        for starts, lengths in _TIFF_DATA.items():
            for start, length in zip(values.get(starts, []), values.get(lengths, []), strict=False):
                if start + length > len(data):
                    found.truncated = True
                else:
                    end = max(end, start + length)
    found.frames = max(1, chain)
    found.end = None if found.truncated else end


WALKERS: dict[str, Callable[[bytes, Anatomy], None]] = {
    "jpeg": _jpeg,
    "png": _png,
    "gif": _gif,
    "webp": _webp,
    "avif": _boxes,
    "heic": _boxes,
    "mp4": _boxes,
    "mov": _boxes,
    "webm": _ebml,
    "bmp": _bmp,
    "tiff": _tiff,
}
