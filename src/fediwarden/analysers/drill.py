"""The drill picture of this installation: made here, recognised here; the code in it is read inside the cage, not here.

The picture is harmless and carries a two-dimensional code. Its text is a marker: an expiry and a serial number under a
message authentication code, keyed to the installation. A marker of another installation, an expired or an invented one is
no evidence of anything, so that nobody can spend someone else's drill allowance.
"""

import base64
import hmac
import io
import os
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from fediwarden.errors import CannotWrite, Misconfigured
from fediwarden.model import Finding, Frame

PREFIX = "FWDRILL"
CONCEPT = "drill"
SMALLEST = 512  # pixels a side of a picture that is made
LONGEST = timedelta(days=365)
WORDS = "Fediwarden drill picture: harmless"

# A marker is PREFIX, 5 characters of expiry, 4 of serial number, 13 of code (65 bits): 29 characters of the alphabet that QR
# stores densely, which is all that a code of 25 by 25 modules can hold while a quarter of it may be damaged (level Q).
_EXPIRY, _SERIAL, _MAC = 5, 4, 13
_MODULES = 25
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR = timedelta(hours=1)
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class DrillKey:
    """The installation's secret for markers. It signs nothing else; the key of the cascade's sample is derived from it."""

    secret: bytes = field(repr=False)

    @classmethod
    def load_or_make(cls, path: Path) -> Self:
        """The key in a file, made on the first call: readable by its owner only, there whole or not at all.

        Raises: Misconfigured for a file that others could read or write, or that holds no key; CannotWrite.
        """
        try:
            if not path.exists():
                _create(path, secrets.token_bytes(_KEY_BYTES))
        except OSError as error:
            raise CannotWrite(f"the drill key {path} cannot be written: {error.strerror}", hint="check the folder") from error
        return cls.load(path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """The key in a file. Raises: Misconfigured as `load_or_make`, and when there is none."""
        try:
            with path.open("rb") as source:
                mode = os.fstat(source.fileno()).st_mode
                secret = source.read(_KEY_BYTES + 1)
        except OSError as error:
            raise Misconfigured(
                f"the drill key {path} cannot be read: {error.strerror}", hint="`fediwarden drill picture` makes one"
            ) from error
        if mode & 0o037:
            raise Misconfigured(f"others may read or change the drill key {path}", hint=f"chmod 600 {path}")
        if len(secret) != _KEY_BYTES:
            raise Misconfigured(f"{path} holds no drill key", hint="remove the file; the next drill makes a new one")
        return cls(secret)


class DrillAnalyser:
    """Reports valid markers of this installation among the codes that were read in a frame."""

    def __init__(self, key: DrillKey, now: Callable[[], datetime]) -> None:
        self._key = key
        self._now = now

    @property
    def name(self) -> str:
        """See `Analyser.name`."""
        return "drill"

    @property
    def version(self) -> str:
        """Empty: a drill says nothing about real pictures, so it must not make them all be looked at again."""
        return ""

    def analyse(self, frames: Sequence[Frame]) -> list[Finding]:
        """One finding of score 1 for each frame with a valid marker."""
        now = self._now()
        return [
            Finding(CONCEPT, 1.0, self.name, PREFIX, frame.index, frame.source)
            for frame in frames
            if any(is_valid(self._key, code, now) for code in frame.codes)
        ]


def make_marker(key: DrillKey, now: datetime, valid_for: timedelta) -> str:
    """A new marker that holds for `valid_for`, rounded up to a full hour. Raises: ValueError outside 0 to LONGEST."""
    if not timedelta(0) < valid_for <= LONGEST:
        raise ValueError("a drill picture must expire within a year")
    hours = -((_EPOCH - now - valid_for) // _HOUR)
    body = PREFIX + _base32(hours, _EXPIRY) + _base32(secrets.randbits(5 * _SERIAL), _SERIAL)
    return body + _mac(key, body)


def is_valid(key: DrillKey, text: str, now: datetime) -> bool:
    """Whether a text is a marker made with this key that has not expired. In constant time for texts of a marker's shape."""
    if len(text) != len(PREFIX) + _EXPIRY + _SERIAL + _MAC or not text.startswith(PREFIX) or not text.isascii():
        return False
    body, mac = text[:-_MAC], text[-_MAC:]
    if not hmac.compare_digest(mac.encode(), _mac(key, body).encode()):
        return False
    hours = int.from_bytes(base64.b32decode("AAA" + body[len(PREFIX) : len(PREFIX) + _EXPIRY]), "big")
    return now <= _EPOCH + hours * _HOUR


def make_picture(key: DrillKey, now: datetime, valid_for: timedelta, size: int = 768) -> bytes:
    """A PNG of `size` by `size` pixels with a new marker; no two have the same bytes. Raises: ValueError below SMALLEST."""
    import zxingcpp
    from PIL import Image, ImageDraw, ImageFont

    if size < SMALLEST:
        raise ValueError(f"a drill picture is at least {SMALLEST} pixels a side")
    marker = make_marker(key, now, valid_for)
    code = zxingcpp.create_barcode(marker, zxingcpp.BarcodeFormat.QRCode, ec_level="Q").to_image(1, False, False)
    modules = Image.frombytes("L", (_MODULES, _MODULES), memoryview(code).tobytes())  # type: ignore[arg-type] # its stubs leave out the buffer
    words = size // 10  # height of the strips above and below the code, which leave it a quiet zone of three modules
    module = (size - 2 * words) // _MODULES
    picture = Image.new("L", (size, size), 255)
    side = module * _MODULES
    corner = (size - side) // 2
    picture.paste(modules.resize((side, side), Image.Resampling.NEAREST), (corner, corner))
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(size / 28)
    draw.text((size / 2, words / 3), WORDS, fill=0, font=font, anchor="mm")
    # chance greys, so that two pictures differ even in the one case in a million where their serial numbers do not
    greys = secrets.token_bytes(32)
    for place, grey in enumerate(greys):
        draw.rectangle((place * size // 32, size - words // 4, (place + 1) * size // 32 - 1, size - 1), fill=grey)
    with io.BytesIO() as out:
        picture.convert("RGB").save(out, "PNG", optimize=True)
        return out.getvalue()


def _mac(key: DrillKey, body: str) -> str:
    digest = hmac.digest(key.secret, b"fediwarden drill marker\0" + body.encode(), "sha256")
    return base64.b32encode(digest)[:_MAC].decode()


def _base32(value: int, length: int) -> str:
    """The last `length` digits in the alphabet of RFC 4648, which QR's alphanumeric mode holds."""
    return base64.b32encode(value.to_bytes(5, "big")).decode()[-length:]


def _create(path: Path, secret: bytes) -> None:
    """Write beside, then link: whoever comes first wins, and nobody ever sees half a key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".drill-", dir=path.parent)  # made with mode 0600
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(secret)
            out.flush()
            os.fsync(out.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return  # another process made one meanwhile; it is as good
    finally:
        Path(temporary).unlink()
