"""Reads two-dimensional codes in a frame and keeps only the texts that begin as a drill marker does; judges none of them."""

import zxingcpp
from PIL import Image

from fediwarden.media.wire import CODE_LENGTH, CODE_PREFIX, CODES_PER_FRAME

EDGE = 960  # pixels: enough for a 200-pixel code in a 1600-pixel picture, at a third of the time of 1280


def read_codes(image: Image.Image) -> tuple[str, ...]:
    """Texts of QR codes in an RGB `image` that start with the drill's prefix; usually none. 1 to 3 ms."""
    grey = image.convert("L")
    if max(grey.size) > EDGE:
        grey.thumbnail((EDGE, EDGE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    if min(grey.size) < 21:  # the smallest code has that many modules
        return ()
    width, height = grey.size
    pixels = memoryview(grey.tobytes()).cast("B", (height, width))
    found = zxingcpp.read_barcodes(
        pixels,
        formats=zxingcpp.BarcodeFormats([zxingcpp.BarcodeFormat.QRCode]),
        try_rotate=False,
        try_invert=False,
        try_downscale=False,
    )
    texts = (code.text[:CODE_LENGTH] for code in found)
    return tuple(text for text in texts if text.startswith(CODE_PREFIX) and text.isascii() and text.isprintable())[
        :CODES_PER_FRAME
    ]
