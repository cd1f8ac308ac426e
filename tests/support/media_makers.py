"""Makers of benign test media: pictures in every format, animations, videos, hidden payloads, bombs. Nothing here reads a file.

All content is computed: gradients, discs, bars, noise and two-dimensional codes. The same arguments give the same bytes.
"""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import zxingcpp
from PIL import Image, ImageDraw, PngImagePlugin

STILL_FORMATS = ("jpeg", "png", "gif", "webp", "avif", "bmp", "tiff")
ANIMATED_FORMATS = ("gif", "apng", "webp", "avif")
VIDEO_FORMATS = ("mp4", "webm", "mov")
COLOURS = ("red", "lime", "blue", "yellow", "magenta", "cyan", "orange", "purple", "brown", "gray", "navy", "olive")


# --- pictures -----------------------------------------------------------------------------------------------------------


def scene(width: int = 640, height: int = 480, seed: int = 0) -> Image.Image:
    """An RGB picture of a gradient, discs, bars and a little noise: as hard to compress as a plain photograph."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    tint = rng.uniform(0.4, 1.0, 3)
    base = np.stack([x / width * 200 * tint[0], y / height * 200 * tint[1], (x + y) / (width + height) * 200 * tint[2]], axis=2)
    base += rng.normal(0, 6, base.shape)
    picture = Image.fromarray(np.clip(base, 0, 255).astype(np.uint8), "RGB")
    draw = ImageDraw.Draw(picture)
    for _ in range(6):
        cx, cy, r = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.03, 0.15) * min(width, height)
        colour = tuple(int(v) for v in rng.integers(0, 256, 3))
        draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=colour)
    return picture


def flat(colour: str | tuple[int, ...] = "red", width: int = 64, height: int = 48) -> Image.Image:
    """One colour and nothing else, so that a test can tell frames apart."""
    return Image.new("RGB", (width, height), colour)


def quarters(width: int = 80, height: int = 40) -> Image.Image:
    """Red top left, lime top right, blue bottom left, yellow bottom right: shows orientation."""
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    for n, colour in enumerate(("red", "lime", "blue", "yellow")):
        x, y = n % 2 * width // 2, n // 2 * height // 2
        draw.rectangle((x, y, x + width // 2, y + height // 2), fill=colour)
    return picture


def encode(picture: Image.Image, format: str, **options: Any) -> bytes:
    """The bytes of `picture` in one of `STILL_FORMATS`."""
    out = io.BytesIO()
    if format in ("jpeg", "webp", "avif"):
        options.setdefault("quality", 90)
    picture.save(out, format.upper(), **options)
    return out.getvalue()


def still(format: str = "jpeg", width: int = 640, height: int = 480, seed: int = 0, **options: Any) -> bytes:
    """A `scene` in one of `STILL_FORMATS`."""
    return encode(scene(width, height, seed), format, **options)


def rotated(orientation: int, width: int = 80, height: int = 40) -> bytes:
    """A JPEG of `quarters` whose EXIF says that it must be turned by `orientation` (1 to 8) to be seen upright."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(quarters(width, height), "jpeg", exif=exif.tobytes(), quality=95, subsampling=0)


def alpha_carried(width: int = 120, height: int = 120, *, ink: int = 0, format: str = "png") -> bytes:
    """A picture whose colour is `ink` everywhere (0 black, 255 white) and whose shapes live in the alpha channel alone."""
    alpha = scene(width, height, 7).convert("L").point(lambda v: 255 if v > 90 else 0)
    plain = Image.new("L", (width, height), ink)
    options: dict[str, Any] = {"lossless": True} if format == "webp" else {}
    return encode(Image.merge("RGBA", (plain, plain, plain, alpha)), format, **options)


def cmyk(width: int = 64, height: int = 48) -> bytes:
    """A CMYK JPEG."""
    return encode(scene(width, height).convert("CMYK"), "jpeg")


# --- animations, pages, videos ------------------------------------------------------------------------------------------


def colours(count: int, width: int = 64, height: int = 48) -> list[Image.Image]:
    """`count` pictures, each of another flat colour than its neighbours, marked with a bar that moves along."""
    pictures = []
    for n in range(count):
        picture = flat(COLOURS[n % len(COLOURS)], width, height)
        x = n * 7 % max(1, width - 4)
        ImageDraw.Draw(picture).rectangle((x, 0, x + 3, height // 8), fill="white")
        pictures.append(picture)
    return pictures


def animation(format: str = "gif", pictures: Sequence[Image.Image] | int = 5, milliseconds: int = 100) -> bytes:
    """An animation in one of `ANIMATED_FORMATS`."""
    frames = colours(pictures) if isinstance(pictures, int) else list(pictures)
    out = io.BytesIO()
    options: dict[str, Any] = {"save_all": True, "append_images": frames[1:], "duration": milliseconds}
    match format:
        case "gif":
            frames[0].save(out, "GIF", loop=0, disposal=1, **options)
        case "apng":
            frames[0].save(out, "PNG", loop=0, **options)
        case "webp":
            frames[0].save(out, "WEBP", lossless=True, loop=0, **options)
        case "avif":
            frames[0].save(out, "AVIF", quality=90, **options)
        case _:
            raise ValueError(format)
    return out.getvalue()


def pages(pictures: Sequence[Image.Image] | int = 3, compression: str = "tiff_deflate") -> bytes:
    """A TIFF with one page per picture."""
    frames = colours(pictures) if isinstance(pictures, int) else list(pictures)
    out = io.BytesIO()
    frames[0].save(out, "TIFF", save_all=True, append_images=frames[1:], compression=compression)
    return out.getvalue()


def movie(
    format: str = "mp4",
    pictures: Sequence[Image.Image] | int = 30,
    rate: int = 10,
    *,
    codec: str = "",
    rotation: int = 0,
    bit_rate: int = 800_000,
) -> bytes:
    """A silent video in one of `VIDEO_FORMATS` at `rate` frames a second; needs the video extra."""
    import av

    frames = colours(pictures, 128, 96) if isinstance(pictures, int) else list(pictures)
    out = io.BytesIO()
    with av.open(out, "w", format=format) as container:
        stream = container.add_stream(codec or ("libvpx-vp9" if format == "webm" else "libx264"), rate=Fraction(rate))
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv420p"
        stream.bit_rate = bit_rate
        stream.codec_context.thread_count = 1
        if stream.codec_context.name == "libvpx-vp9":
            stream.codec_context.options = {"cpu-used": "8", "deadline": "realtime"}
        if stream.codec_context.name == "libx264":
            stream.codec_context.options = {"preset": "ultrafast"}
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
        container.mux(stream.encode(None))
    data = out.getvalue()
    return _turned(data, rotation) if rotation else data


def _turned(data: bytes, degrees: int) -> bytes:
    """Set the display matrix of the first track header of an MP4 or MOV: turn by `degrees` (90, 180 or 270) clockwise."""
    one, minus = 0x00010000, 0xFFFF0000
    a, b, c, d = {90: (0, one, minus, 0), 180: (minus, 0, 0, minus), 270: (0, minus, one, 0)}[degrees]
    at = data.index(b"tkhd")
    matrix = at + 4 + (52 if data[at + 4] else 40)
    return data[:matrix] + struct.pack(">9I", a, b, 0, c, d, 0, 0, 0, 0x40000000) + data[matrix + 36 :]


# --- payloads hidden in and behind pictures -----------------------------------------------------------------------------


def zip_of(files: Mapping[str, bytes], *, encrypted: bool = False, stored: bool = True) -> bytes:
    """A zip archive; with `encrypted` every entry is flagged as such, as a zip with a password is."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED)
    made = bytearray(out.getvalue())
    if encrypted:
        for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            at = made.find(signature)
            while at >= 0:
                made[at + flags] |= 1
                at = made.find(signature, at + 4)
    return bytes(made)


def tar_of(files: Mapping[str, bytes], compression: str = "") -> bytes:
    """A tar archive, plain or with "gz", "bz2" or "xz" around it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    plain = out.getvalue()
    return {"": bytes, "gz": lambda d: gzip.compress(d, mtime=0), "bz2": bz2.compress, "xz": lzma.compress}[compression](plain)


def nested_zip(depth: int, inner: bytes, name: str = "a.jpg") -> bytes:
    """A zip in a zip in a zip, `depth` deep, with `inner` at the bottom."""
    data = zip_of({name: inner})
    for n in range(depth - 1):
        data = zip_of({f"level{n}.zip": data})
    return data


def with_segment(jpeg: bytes, payload: bytes, marker: int = 0xEB) -> bytes:
    """A JPEG with one more segment (APP11 unless told) right after its start; `payload` up to 65,533 bytes."""
    return jpeg[:2] + bytes((0xFF, marker)) + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def with_comment(jpeg: bytes, text: bytes) -> bytes:
    """A JPEG with a comment segment."""
    return with_segment(jpeg, text, 0xFE)


def with_thumbnail(jpeg: bytes, thumbnail: bytes) -> bytes:
    """A JPEG whose EXIF carries another JPEG as its thumbnail."""
    # a little-endian TIFF: empty IFD0, then IFD1 with Compression=6, JPEGInterchangeFormat and its length
    entries = [(0x0103, 3, 1, 6), (0x0201, 4, 1, 8 + 6 + 2 + 3 * 12 + 4), (0x0202, 4, 1, len(thumbnail))]
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<HI", 0, 14) + struct.pack("<H", len(entries))
    tiff += b"".join(struct.pack("<HHII", *entry) for entry in entries) + struct.pack("<I", 0) + thumbnail
    return with_segment(jpeg, b"Exif\0\0" + tiff, 0xE1)


def with_second_picture(jpeg: bytes, second: bytes) -> bytes:
    """A multi-picture JPEG (CIPA MPF): the second one lies behind the end of the first, listed in an APP2 segment."""
    head = b"MPF\0" + b"II*\0" + struct.pack("<I", 8)
    entries = 16 * 2
    ifd = struct.pack("<H", 3)
    ifd += struct.pack("<HHI4s", 0xB000, 7, 4, b"0100") + struct.pack("<HHII", 0xB001, 4, 1, 2)
    ifd += struct.pack("<HHII", 0xB002, 7, entries, 8 + 2 + 3 * 12 + 4) + struct.pack("<I", 0)
    length = len(head) + len(ifd) + entries
    first = len(jpeg) + length + 4
    base = 2 + 4 + 4  # offsets count from the byte-order mark
    body = struct.pack("<IIIHH", 0x030000, first, 0, 0, 0) + struct.pack("<IIIHH", 0, len(second), first - base, 0, 0)
    return with_segment(jpeg, head + ifd + body, 0xE2) + second


def motion_photo(jpeg: bytes, video: bytes) -> bytes:
    """A JPEG with the XMP of a motion photo and the video behind it."""
    xmp = (
        b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x='adobe:ns:meta/'><rdf:RDF xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#'>"
        b"<rdf:Description xmlns:Camera='http://ns.google.com/photos/1.0/camera/' Camera:MotionPhoto='1' Camera:MicroVideo='1' "
        b"Camera:MicroVideoOffset='%d'/></rdf:RDF></x:xmpmeta>" % len(video)
    )
    return with_segment(jpeg, xmp, 0xE1) + video


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    """One PNG chunk with its length and check sum."""
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def with_chunk(png: bytes, kind: bytes, payload: bytes) -> bytes:
    """A PNG with one more chunk before its end."""
    return png[:-12] + png_chunk(kind, payload) + png[-12:]


def with_riff_chunk(webp: bytes, kind: bytes, payload: bytes) -> bytes:
    """A WebP with one more chunk at its end, the length in the header corrected."""
    body = webp[8:] + kind + struct.pack("<I", len(payload)) + payload + (b"\0" if len(payload) % 2 else b"")
    return b"RIFF" + struct.pack("<I", len(body)) + body


def pdf_with(jpeg: bytes, width: int = 64, height: int = 48) -> bytes:
    """A one-page PDF that shows a JPEG."""
    image = b"<< /Type /XObject /Subtype /Image /Width %d /Height %d /ColorSpace /DeviceRGB /BitsPerComponent 8" % (width, height)
    image += b" /Filter /DCTDecode /Length %d >>\nstream\n%s\nendstream" % (len(jpeg), jpeg)
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 200 200] /Resources << /XObject << /I 4 0 R >> >> >>",
        image,
    )
    out = b"%PDF-1.4\n"
    for n, body in enumerate(objects, 1):
        out += b"%d 0 obj\n%s\nendobj\n" % (n, body)
    return out + b"trailer << /Root 1 0 R >>\n%%EOF\n"


def gif_script() -> bytes:
    """A GIF whose header bytes also read as the start of a script, with the script behind its end."""
    gif = bytearray(encode(flat("red", 8, 8), "gif"))
    return bytes(gif) + b"=1;alert('two files in one');//"


def svg(width: int = 100, height: int = 50) -> bytes:
    """A small SVG drawing: text, which no decoder here opens."""
    return b'<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d"><rect width="20" height="20"/></svg>' % (
        width,
        height,
    )


# --- bad days -----------------------------------------------------------------------------------------------------------


def truncated(data: bytes, keep: float = 0.6) -> bytes:
    """The first part of a file, as a broken upload leaves it."""
    return data[: max(1, int(len(data) * keep))]


def pixel_bomb(width: int = 20_000, height: int = 20_000) -> bytes:
    """A PNG of some 50 kB that unpacks to `width` x `height` grey pixels (400 megapixels unless told)."""
    packer = zlib.compressobj(9)
    row = b"\0" * (width // 8 + 2)
    body = b"".join(packer.compress(row * min(100, height - y)) for y in range(0, height, 100)) + packer.flush()
    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", head) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def text_bomb(megabytes: int = 200) -> bytes:
    """A small PNG with a zTXt chunk that unpacks to `megabytes` of zeros."""
    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(1 << 20)) for _ in range(megabytes)) + packer.flush()
    png = encode(flat(), "png")
    return png[:33] + png_chunk(b"zTXt", b"Comment\0\0" + body) + png[33:]


def giant_gif() -> bytes:
    """A GIF that says it is 65,535 x 65,535 pixels large."""
    gif = bytearray(encode(flat("red", 8, 8), "gif"))
    gif[6:10] = struct.pack("<HH", 65_535, 65_535)
    return bytes(gif)


def zip_bomb(megabytes: int = 300) -> bytes:
    """A small zip with one entry that unpacks to `megabytes` of zeros."""
    return zip_of({"zeros.bin": bytes(megabytes << 20)}, stored=False)


# --- two-dimensional codes ----------------------------------------------------------------------------------------------


def code(text: str, side: int = 200) -> Image.Image:
    """A QR code of `text`, `side` x `side` pixels, on white with its quiet zone inside."""
    made = np.array(zxingcpp.create_barcode(text, zxingcpp.BarcodeFormat.QRCode, ec_level="M").to_image(scale=4))
    return Image.fromarray(made).convert("RGB").resize((side, side), Image.Resampling.NEAREST)


def with_code(picture: Image.Image, text: str, side: int = 200, at: tuple[int, int] = (40, 30)) -> Image.Image:
    """`picture` with a QR code of `side` pixels pasted with its upper left corner at `at`."""
    joined = picture.copy()
    joined.paste(code(text, side), at)
    return joined


# --- everything at once -------------------------------------------------------------------------------------------------


def gallery(*, video: bool = True) -> dict[str, bytes]:
    """One benign file of every format, by a file name that fits: seeds for fuzzing and stores for demonstrations."""
    files = {f"still.{format}": still(format, 160, 120, seed) for seed, format in enumerate(STILL_FORMATS)}
    files |= {f"animation.{format}": animation(format, 6) for format in ANIMATED_FORMATS}
    files["pages.tiff"] = pages()
    files["alpha.png"] = alpha_carried()
    files["palette.png"] = encode(scene(90, 60).convert("P"), "png")
    files["grey16.png"] = encode(Image.fromarray(np.arange(6400, dtype=np.uint16).reshape(80, 80) * 10), "png")
    files["cmyk.jpg"] = cmyk()
    files["progressive.jpg"] = still("jpeg", 160, 120, 3, progressive=True)
    files["turned.jpg"] = rotated(6)
    files["wide.png"] = still("png", 900, 60)
    files["thumbnail.jpg"] = with_thumbnail(still("jpeg", 160, 120), still("jpeg", 40, 30, 5))
    files["two.jpg"] = with_second_picture(still("jpeg", 160, 120), still("jpeg", 80, 60, 6))
    files["zip.jpg"] = still("jpeg", 160, 120) + zip_of({"a.png": still("png", 40, 30, 8)})
    files["tar.png"] = still("png", 80, 60) + tar_of({"a.jpg": still("jpeg", 40, 30, 8)}, "gz")
    files["plain.zip"] = zip_of({"a.png": still("png", 40, 30, 8)}, stored=False)
    files["page.pdf"] = pdf_with(encode(flat(), "jpeg"))
    if video:
        files |= {f"video.{format}": movie(format) for format in VIDEO_FORMATS}
        files["moving.jpg"] = motion_photo(still("jpeg", 160, 120), movie("mp4", 6))
    return files


def png_texts(png: bytes, **texts: str) -> bytes:
    """A PNG saved again with text chunks."""
    info = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        info.add_text(key, value)
    return encode(Image.open(io.BytesIO(png)), "png", pnginfo=info)
