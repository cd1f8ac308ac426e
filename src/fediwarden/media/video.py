"""Samples videos with PyAV, only inside the cage; which frames are wanted follows from the index of packets, not from trust.

Seeking alone is not relied on: the packets say where keyframes lie, and from there frames are decoded up to the wanted one.
"""

import io
import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import av
from PIL import Image

from fediwarden.media.decode import Decoded
from fediwarden.media.limits import Limits
from fediwarden.media.structure import Anatomy
from fediwarden.media.views import FramePlace, Views, sample, tile_every
from fediwarden.model import Kind, Note, Reason

STREAMS = 4  # pictures of a cover and second cameras count as streams
PACKETS = 2_000_000
DEMUXER = {"mp4": "mov", "mov": "mov", "webm": "matroska"}
CODECS = frozenset(
    (
        "h264",
        "hevc",
        "vp8",
        "vp9",
        "libvpx",
        "libvpx-vp9",
        "av1",
        "libdav1d",
        "mpeg4",
        "msmpeg4v3",
        "mpeg1video",
        "mpeg2video",
        "h263",
        "mjpeg",
        "png",
        "gif",
        "bmp",
        "prores",
        "qtrle",
        "svq3",
        "theora",
        "rawvideo",
    )
)


@dataclass(slots=True)
class _Index:
    """Presentation times of the packets of one stream, ascending, and those of the keyframes among them."""

    times: list[int]
    keys: list[int]


def decode(data: bytes, format: str, anatomy: Anatomy, source: str, limits: Limits, views: Views) -> Decoded:
    """Show the chosen frames of every video stream; never raises for any bytes but MemoryError."""
    outcome = Decoded(Kind("mov" if format == "mov" else format, frames=0))
    shown = damaged = 0
    try:
        with _opened(data, format) as container:
            numbers = [s.index for s in container.streams.video if s.codec_context.name in CODECS]
            strange = len(container.streams.video) - len(numbers)
        for number in numbers[:STREAMS]:
            seen, bad = _stream(data, format, number, source, limits, views, outcome)
            shown, damaged = shown + seen, damaged + bad
    except (av.error.MemoryError, MemoryError) as error:
        raise MemoryError from error
    except Image.DecompressionBombError as error:
        outcome.reason, outcome.problem = Reason.BOMB, str(error)
        return outcome
    except Exception as error:  # noqa: BLE001 - libav and its bindings raise nearly anything on hostile bytes
        cut = anatomy.truncated or isinstance(error, av.error.EOFError)
        outcome.reason = Reason.TRUNCATED if cut else Reason.MALFORMED
        outcome.problem = f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
        return outcome
    if anatomy.truncated:
        outcome.reason, outcome.problem = Reason.TRUNCATED, "the file ends before the video does"
    elif not shown and (strange or not numbers):
        outcome.reason, outcome.problem = Reason.UNSUPPORTED, "no video stream in it that can be decoded"
    elif not shown:
        outcome.reason, outcome.problem = Reason.MALFORMED, "no frame of it can be decoded"
    elif damaged:
        outcome.notes.append(Note("coverage", source or "frames", 0, f"{damaged} packets could not be decoded"))
    return outcome


def _opened(data: bytes, format: str) -> "av.container.InputContainer":
    return av.open(io.BytesIO(data), "r", format=DEMUXER[format], metadata_errors="replace")


def _stream(
    data: bytes, format: str, number: int, source: str, limits: Limits, views: Views, outcome: Decoded
) -> tuple[int, int]:
    """Show one stream; returns how many frames were shown and how many packets could not be decoded."""
    index = _index(data, format, number)
    if not index.times:
        return 0, 0
    with _opened(data, format) as container:
        stream = container.streams[number]
        if not isinstance(stream, av.VideoStream):
            return 0, 0
        context = stream.codec_context
        context.thread_count = 1
        if context.width * context.height > limits.max_pixels:
            raise Image.DecompressionBombError(f"{context.width} x {context.height} pixels")
        tick = float(stream.time_base or 1)
        first = index.times[0]
        starts = [(time - first) * tick for time in index.times]
        chosen = [index.times[n] for n in sample(len(index.times), starts, limits)]
        every = tile_every(len(chosen), context.width, context.height)
        if every > 1:
            outcome.notes.append(Note("coverage", source or "tiles", 0, f"every {every}th frame looked at in tiles"))
        shown = 0
        bad = [0]
        size = (0, 0)
        for time, frame in _wanted(container, stream, index, chosen, bad):
            image = _picture(frame, limits)
            size = (frame.height, frame.width) if frame.rotation % 180 else (frame.width, frame.height)
            number = bisect_right(index.times, time) - 1
            tiled = shown % every == 0 or number == len(index.times) - 1
            views.show(image, FramePlace(number, max(0.0, (time - first) * tick), source, limits.animated_edge, tiled))
            shown += 1
    if shown < len(index.times):
        outcome.notes.append(Note("coverage", source or "frames", 0, f"{shown} of {len(index.times)} frames looked at"))
    if outcome.kind is not None and outcome.kind.frames < len(index.times):
        outcome.kind = Kind(outcome.kind.format, *size, len(index.times), shown, round(starts[-1], 3))
    return shown, bad[0]


def _index(data: bytes, format: str, number: int) -> _Index:
    times, keys = [], []
    with _opened(data, format) as container:
        try:
            for packet in container.demux(container.streams[number]):
                time = packet.pts if packet.pts is not None else packet.dts
                if time is None or packet.size == 0:
                    continue
                times.append(time)
                if packet.is_keyframe:
                    keys.append(time)
                if len(times) >= PACKETS:
                    break
        except (av.error.FFmpegError, struct.error):
            pass  # cut off: what came so far is the index
    return _Index(sorted(times), sorted(keys))


def _wanted(
    container: "av.container.InputContainer", stream: av.VideoStream, index: _Index, chosen: list[int], bad: list[int]
) -> Iterator[tuple[int, av.VideoFrame]]:
    """The frames shown at the chosen times, in order; jumps ahead only where a keyframe lies in between."""
    place, now = 0, index.times[0] - 1
    while place < len(chosen):
        before = bisect_right(index.keys, chosen[place]) - 1
        key = index.keys[before] if before >= 0 else None
        if key is not None and key > now and now >= index.times[0]:
            container.seek(key, stream=stream, backward=True)
        came = False
        for frame in _decoded(container, stream, bad):
            time = frame.pts if frame.pts is not None else now + 1
            if time <= now and came:
                continue
            came, now = True, max(now, time)
            if time < chosen[place]:
                continue
            yield time, frame
            while place < len(chosen) and chosen[place] <= time:
                place += 1
            if place == len(chosen):
                return
            before = bisect_right(index.keys, chosen[place]) - 1
            if before >= 0 and index.keys[before] > now and _far(index, now, index.keys[before]):
                break  # a keyframe lies ahead: skip what lies between
        else:
            return


def _far(index: _Index, now: int, key: int) -> bool:
    """Whether jumping saves more than the reorder delay of a decoder costs."""
    return bisect_right(index.times, key) - bisect_right(index.times, now) > 32


def _decoded(container: "av.container.InputContainer", stream: av.VideoStream, bad: list[int]) -> Iterator[av.VideoFrame]:
    try:
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.MemoryError:
                raise
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                bad[0] += 1
                continue
            for frame in frames:
                if isinstance(frame, av.VideoFrame):
                    yield frame
    except av.error.MemoryError as error:
        raise MemoryError from error
    except av.error.FFmpegError:
        bad[0] += 1


def _picture(frame: av.VideoFrame, limits: Limits) -> Image.Image:
    """One decoded frame as a small upright picture. The stream may change its size at any frame."""
    if frame.width * frame.height > limits.max_pixels:
        raise Image.DecompressionBombError(f"{frame.width} x {frame.height} pixels")
    clear = any(component.is_alpha for component in frame.format.components)
    mode, name = ("RGBA", "rgba") if clear else ("RGB", "rgb24")
    long, short = max(frame.width, frame.height), min(frame.width, frame.height)
    edge = min(long, max(limits.animated_edge, limits.frame_edge if long > 2 * short else 0))
    width, height = (max(1, round(side * edge / long)) for side in (frame.width, frame.height))
    small = frame.reformat(width=width, height=height, format=name, threads=1)
    plane = small.planes[0]
    image = Image.frombytes(mode, (small.width, small.height), bytes(plane), "raw", mode, plane.line_size, 1)
    return image.rotate(frame.rotation, expand=True) if frame.rotation else image
