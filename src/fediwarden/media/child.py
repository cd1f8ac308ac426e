"""What one caged child does with one object: identify, walk, decode, open what hides inside, report. It touches no file.

Which payloads count as not opened (and make a look *partly* seen) is decided here. A camera's picture must not, a hidden
file must: anything encrypted, of a kind that nothing here opens, or over a bound does; so do unknown bytes behind the end
of a picture from 1 kB on, and unknown private segments from 4 kB on whose bytes are as even as compressed or encrypted
ones. Padding, text, EXIF, XMP, colour profiles and short vendor trailers are notes at most.
"""

import math
from collections import Counter
from collections.abc import Callable

from fediwarden.media import archives, decode, structure
from fediwarden.media.archives import Member, UnpackingBudget
from fediwarden.media.decode import Decoded
from fediwarden.media.identify import FormatFamily, What, disagreements, identify
from fediwarden.media.limits import Limits
from fediwarden.media.structure import Anatomy
from fediwarden.media.views import Views
from fediwarden.media.wire import FORMATS, Report
from fediwarden.model import Frame, Kind, Note, Reason, Unopened

TRAILING_BOUND = 1 << 10  # unknown bytes behind a picture
PRIVATE_BOUND = 4 << 10  # unknown bytes in a private segment or chunk
EVEN = 7.2  # bits of entropy a byte, of at most 8
VENDOR_BOUND = 64 << 10
NESTED = 4  # pictures in pictures in pictures
CARVED = 32  # finds in one payload
LIKENESSES = 100_000  # places in one object that begin as a file does
TRIES = 24  # of them, those that may turn out to be none when opened: each costs a decoder's attempt
NOTES = 150

_SIGNATURES = (
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"GIF87a",
    b"GIF89a",
    b"ftyp",
    b"WEBPVP8",
    b"\x1aE\xdf\xa3",
    b"PK\x03\x04",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
    b"\x1f\x8b\x08",
    b"\xfd7zXZ\0",
    b"1AY&SY",
    b"%PDF-",
    b"ustar",
)
_BEFORE = {b"ftyp": 4, b"WEBPVP8": 8, b"1AY&SY": 4, b"ustar": 257}  # where a file begins, before its mark
_SCRIPTS = (b"<script", b"<?php", b"<html", b"javascript:")

VideoDecoder = Callable[[bytes, str, Anatomy, str, Limits, Views], Decoded]


class ChildLooker:
    """One look at one object. `video` is None where the extra is not installed."""

    def __init__(self, limits: Limits, send: Callable[[Frame], None], video: VideoDecoder | None) -> None:
        self._limits = limits
        self._views = Views(limits, send)
        self._video = video
        self._budget = UnpackingBudget(limits.archive_mb << 20)
        self._embedded = limits.embedded
        self._likenesses, self._tries = LIKENESSES, TRIES
        self._notes: list[Note] = []
        self._unopened: list[Unopened] = []

    def look(self, data: bytes, claimed: str, ending: str) -> Report:
        """See all that can be seen of `data`; whatever it is, a report comes of it."""
        if not data:
            return Report(reason=Reason.EMPTY, problem="the object is empty")
        what = identify(data)
        for detail in disagreements(what, claimed, ending):
            self._note(Note("claim", "object", len(data), detail))
        outcome, exhausted = Decoded(Kind("unknown")), False
        try:
            if self._decodes(what):
                anatomy = structure.walk(data, what.format)
                self._header(data, what)
                outcome = self._seen(data, what, anatomy, "")
                self._inside(anatomy, "", 0)
            else:
                outcome.reason, outcome.problem = (
                    Reason.UNSUPPORTED,
                    f"{_named(what)} is not a picture or video that can be opened here",
                )
                if what.format in structure.WALKERS:
                    self._inside(structure.walk(data, what.format), "", 0)
                if what.family in (
                    FormatFamily.PICTURE,
                    FormatFamily.VIDEO,
                    FormatFamily.AUDIO,
                    FormatFamily.UNKNOWN,
                    FormatFamily.TEXT,
                    FormatFamily.PADDING,
                ):
                    self._carve(data, "inside", 1, quiet=True)
                else:
                    self._open(data, what, what.format, 0)
        except MemoryError:
            exhausted = True  # what was allocated goes with the traceback, and only then is there room for a report
        if exhausted:
            outcome.reason, outcome.problem = Reason.BOMB, "needs more memory than the cage allows"
        if self._views.refused:
            self._unopened.append(Unopened("frames", "too many", self._views.refused))
        return Report(outcome.kind, tuple(self._notes), tuple(self._unopened), outcome.reason, outcome.problem)

    # --- pictures and videos --------------------------------------------------------------------------------------------

    def _decodes(self, what: What) -> bool:
        return what.opens and (
            what.family is FormatFamily.PICTURE or (what.family is FormatFamily.VIDEO and self._video is not None)
        )

    def _seen(self, data: bytes, what: What, anatomy: Anatomy, source: str) -> Decoded:
        if what.family is FormatFamily.VIDEO and self._video is not None:
            outcome = self._video(data, what.format, anatomy, source, self._limits, self._views)
        else:
            outcome = decode.decode(data, what.format, anatomy, source, self._limits, self._views)
        for note in outcome.notes:
            self._note(note)
        return outcome

    def _header(self, data: bytes, what: What) -> None:
        """A second format that begins in the first bytes of this one."""
        if what.format != "pdf" and data[:1024].find(b"%PDF-") > 0:
            self._note(Note("document", "header", 0, "also reads as a PDF"))

    def _inside(self, anatomy: Anatomy, source: str, depth: int) -> None:
        """Everything in a picture or video that is not the picture itself."""
        prefix = f"{source}/" if source else ""
        for note in anatomy.notes:
            self._note(Note(note.what, prefix + note.where, note.size, note.detail))
        for unopened in anatomy.unopened:
            self._fail(Unopened(prefix + unopened.where, unopened.why, unopened.size))
        for part in anatomy.parts:
            self._payload(part.data, prefix + part.where, depth + 1, known=part.known)

    # --- payloads -------------------------------------------------------------------------------------------------------

    def _payload(self, data: bytes, where: str, depth: int, *, known: bool) -> None:
        """Open a payload by what it is, else search it for what can be opened, else decide whether it is worth a worry."""
        what = identify(data)
        if not known and what.family is not FormatFamily.UNKNOWN and what.family is not FormatFamily.TEXT:
            self._open(data, what, where, depth)
            return
        found = self._carve(data, where, depth)
        for script in _SCRIPTS:
            if script in data[: 1 << 20].lower():
                self._note(Note("script", where, len(data)))
                break
        if known or found or what.family is FormatFamily.TEXT:
            return
        trailing = where.rsplit("/", 1)[-1] == "trailing"
        if trailing and data[-4:] == b"SEFT" and len(data) < VENDOR_BOUND:  # what one maker's cameras leave behind pictures
            return
        if (trailing and len(data) >= TRAILING_BOUND) or (len(data) >= PRIVATE_BOUND and _entropy(data) >= EVEN):
            self._fail(Unopened(where, "unsupported", len(data)))

    def _open(self, data: bytes, what: What, where: str, depth: int) -> None:
        match what.family:
            case FormatFamily.PICTURE | FormatFamily.VIDEO:
                self._picture(data, what, where, depth, sure=True)
            case FormatFamily.ARCHIVE:
                self._note(Note("archive", where, len(data), what.format))
                self._archive(data, what, where, depth)
            case FormatFamily.DOCUMENT:
                self._note(Note("document", where, len(data), what.format))
                if not self._carve(data[5:], where, depth + 1):
                    self._fail(Unopened(where, "unsupported", len(data)))
            case FormatFamily.SCRIPT:
                self._note(Note("script", where, len(data), what.format))
                self._carve(data[2:], where, depth + 1)
            case FormatFamily.AUDIO:
                self._note(Note("audio", where, len(data), what.format))
            case FormatFamily.TEXT | FormatFamily.PADDING | FormatFamily.UNKNOWN:
                self._carve(data, where, depth)

    def _picture(self, data: bytes, what: What, where: str, depth: int, *, sure: bool) -> int:
        """Look at an embedded picture or video; returns how many bytes it takes, 0 where none could be seen.

        Where it was only found by its mark (not `sure`), what does not decode was chance and no picture.
        """
        if not self._decodes(what):
            if sure:
                self._note(Note(what.family.value, where, len(data), what.format))
                self._fail(Unopened(where, "unsupported", len(data)))
            return 0
        if self._embedded <= 0 or depth > NESTED:
            self._fail(Unopened(where, "too many" if self._embedded <= 0 else "too deep", len(data)))
            return len(data)
        self._embedded -= 1
        anatomy = structure.walk(data, what.format)
        outcome = self._seen(data, what, anatomy, where)
        seen = outcome.kind is not None and outcome.kind.sampled > 0
        size = anatomy.end or len(data)
        if not seen and not sure:
            self._embedded += 1
            return 0
        kind = outcome.kind
        detail = f"{what.format} {kind.width}x{kind.height}" if kind else what.format
        self._note(Note("video" if what.family is FormatFamily.VIDEO else "picture", where, size, detail))
        if outcome.reason is not None and not (seen and not sure):
            self._fail(Unopened(where, "too large" if outcome.reason is Reason.BOMB else "broken", size))
        if sure:
            self._inside(anatomy, where, depth)
        else:
            anatomy.parts = [part for part in anatomy.parts if part.where != "trailing"]  # the search goes on there
            anatomy.notes = [note for note in anatomy.notes if note.where != "trailing"]
            self._inside(anatomy, where, depth)
        return size

    def _carve(self, data: bytes, where: str, depth: int, *, quiet: bool = False) -> bool:
        """Find files by their marks anywhere in `data` and open them; says whether there was any."""
        if depth > NESTED:
            return False
        at, found = 0, 0
        marks = {mark: data.find(mark) for mark in _SIGNATURES}
        while found < CARVED:
            starts = {}
            for mark, spot in marks.items():
                while 0 <= spot < at + _BEFORE.get(mark, 0):
                    spot = data.find(mark, spot + 1)
                marks[mark] = spot
                if spot >= 0:
                    starts[spot - _BEFORE.get(mark, 0)] = mark
            if not starts:
                return found > 0
            start = min(starts)
            self._likenesses -= 1
            if self._likenesses < 0 or self._tries < 0:
                break
            size = 0
            if _likely(data[start : start + 1024]):
                size = self._carved(data[start:], where, depth)
                self._tries -= size == 0
            found += size > 0
            at = start + max(1, size)
        if not quiet:
            self._fail(Unopened(where, "too many", len(data) - at))
        return True

    def _carved(self, data: bytes, where: str, depth: int) -> int:
        """Open what begins here, if it is more than a chance likeness; returns its size, 0 if it was none."""
        what = identify(data)
        match what.family:
            case FormatFamily.PICTURE | FormatFamily.VIDEO:
                if what.format in ("tiff", "bmp") or (what.family is FormatFamily.PICTURE and len(data) < 64):
                    return 0
                return self._picture(data, what, where, depth, sure=False)
            case FormatFamily.ARCHIVE if what.format in ("zip", "7z", "rar", "tar"):
                self._note(Note("archive", where, len(data), what.format))
                self._archive(data, what, where, depth)
                return len(data)
            case FormatFamily.ARCHIVE:
                items = list(archives.entries(data, what.format, UnpackingBudget(min(self._budget.left, 1 << 20))))
                if all(isinstance(item, Unopened) and item.why == "broken" for item in items):
                    return 0
                self._note(Note("archive", where, len(data), what.format))
                self._archive(data, what, where, depth)
                return len(data)
            case FormatFamily.DOCUMENT if what.format == "pdf":
                self._open(data, what, where, depth)
                return len(data)
            case _:
                return 0

    def _archive(self, data: bytes, what: What, where: str, depth: int, levels: int = 1) -> None:
        """Open every entry; `levels` counts archives inside archives, where a compressed tar is one."""
        if levels > self._limits.archive_depth:
            self._fail(Unopened(where, "too deep", len(data)))
            return
        broken = False
        for item in archives.entries(data, what.format, self._budget):
            if isinstance(item, Unopened):
                self._fail(Unopened(f"{where}/{item.where}" if item.where else where, item.why, item.size))
                broken = broken or (item.why == "broken" and not item.where)
                continue
            self._entry(item, what, where, depth, levels)
        if broken:
            self._carve(data[4:], where, depth + 1, quiet=True)

    def _entry(self, entry: Member, outer: What, where: str, depth: int, levels: int) -> None:
        name = f"{where}/{outer.format}/{entry.name}" if entry.name else f"{where}/{outer.format}"
        what = identify(entry.data)
        match what.family:
            case FormatFamily.ARCHIVE:
                self._note(Note("archive", name, len(entry.data), what.format))
                wrapped = outer.format in ("gzip", "bzip2", "xz") and what.format == "tar"
                self._archive(entry.data, what, name, depth, levels if wrapped else levels + 1)
            case FormatFamily.PICTURE | FormatFamily.VIDEO | FormatFamily.DOCUMENT | FormatFamily.SCRIPT | FormatFamily.AUDIO:
                self._open(entry.data, what, name, min(depth + 1, NESTED))
            case _:
                self._payload(entry.data, name, min(depth + 1, NESTED), known=what.family is not FormatFamily.UNKNOWN)

    # --- facts ----------------------------------------------------------------------------------------------------------

    def _note(self, note: Note) -> None:
        if len(self._notes) < NOTES:
            self._notes.append(note)

    def _fail(self, unopened: Unopened) -> None:
        if len(self._unopened) < NOTES:
            self._unopened.append(unopened)


def _named(what: What) -> str:
    return what.format if what.format in FORMATS - {"unknown"} or what.opens else f"{what.family.value} ({what.format})"


def _likely(head: bytes) -> bool:
    """Whether more than a mark speaks for a file that begins like this; cheap, for it is asked at every mark."""
    what = identify(head)
    if what.family in (FormatFamily.UNKNOWN, FormatFamily.TEXT, FormatFamily.PADDING, FormatFamily.SCRIPT, FormatFamily.AUDIO):
        return False
    if what.format in ("gzip", "bzip2", "xz"):
        (opened,) = archives.entries(head, what.format, UnpackingBudget(1 << 20))
        return len(head) < 1024 or not (isinstance(opened, Unopened) and opened.why == "broken") or what.format != "gzip"
    return True


def _entropy(data: bytes) -> float:
    """Bits of Shannon entropy a byte, of a sample of 64 kB."""
    sample = data[: 64 << 10]
    return -sum(n / len(sample) * math.log2(n / len(sample)) for n in Counter(sample).values())
