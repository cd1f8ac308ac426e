"""The preloaded parent of the caged children: loads decoders once, forks children when told, decodes nothing foreign.

Runs as a process of its own with an empty environment and one socket; when that closes, it and its children end. The
protocol on the socket is one JSON object a datagram, with the two pipes of a new child as file descriptors. Objects
themselves go straight to the child.
"""

import argparse
import bz2
import codecs
import errno
import fcntl
import gc
import gzip
import io
import json
import lzma
import os
import resource
import select
import signal
import socket
import sys
import tarfile
import traceback
import zipfile
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from PIL import Image

from fediwarden.media import decode, lockdown, structure, wire
from fediwarden.media.child import ChildLooker, VideoDecoder
from fediwarden.media.limits import Limits
from fediwarden.media.lockdown import Walls
from fediwarden.media.views import Views
from fediwarden.model import Frame, Reason

_REQUESTS, _RESULTS = 3, 4  # the only descriptors a child keeps besides the three that lead nowhere
_REQUEST_BYTES = 4096


def main(arguments: list[str] | None = None, server: "type[ForkServer] | None" = None) -> int:
    """Serve until the socket closes. `server`: who does, where that is not `ForkServer` itself."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--limits", required=True)
    options = parser.parse_args(arguments)
    limits = Limits.from_json(json.loads(options.limits))
    channel = socket.socket(fileno=options.socket)
    decode.prepare(limits)
    video = _video()
    _warm(limits, video)
    gc.collect()
    gc.freeze()  # so that counting references in children copies as few pages as possible
    (server or ForkServer)(channel, limits, video).serve()
    return 0


def _video() -> VideoDecoder | None:
    try:
        import av

        from fediwarden.media import video
    except ImportError:
        return None
    av.logging.set_level(None)  # libav would write what it reads in foreign files
    return video.decode


def formats(video: bool) -> list[str]:
    """What can be opened here, given the extras."""
    from PIL import features

    found = {"jpeg", "png", "apng", "gif", "bmp", "tiff"}
    found |= {name for name in ("webp", "avif") if features.check(name)}
    return sorted(found | ({"mp4", "webm", "mov"} if video else set()))


def _warm(limits: Limits, video: VideoDecoder | None) -> None:
    """Decode pictures made here with every decoder, so that nothing is left to load once the walls are up."""

    def nowhere(frame: Frame) -> None:
        del frame

    picture = Image.linear_gradient("L").resize((48, 32)).convert("RGB")
    other = picture.transpose(Image.Transpose.ROTATE_180)
    for format, options in (
        ("JPEG", {}),
        ("PNG", {}),
        ("GIF", {"save_all": True, "append_images": [other]}),
        ("WEBP", {"save_all": True, "append_images": [other]}),
        ("WEBP", {"lossless": True}),
        ("AVIF", {"speed": 10, "max_threads": 1}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ):
        out = io.BytesIO()
        try:
            picture.save(out, format, **options)
        except (OSError, KeyError):  # built without this codec
            continue
        data = out.getvalue()
        ChildLooker(limits, nowhere, video).look(data, "", "")
    palette = io.BytesIO()
    picture.convert("P").save(palette, "PNG", transparency=3)
    ChildLooker(limits, nowhere, video).look(palette.getvalue(), "", "")
    _warm_archives(limits)
    if video is not None:
        for format, codec in (("mp4", "mpeg4"), ("webm", "libvpx"), ("mov", "mjpeg")):
            data = _movie(picture, format, codec)
            if data:
                video(data, format, structure.walk(data, format), "", limits, Views(limits, nowhere))


def _warm_archives(limits: Limits) -> None:
    """Open one archive of each kind, and touch what the standard library loads late."""
    for encoding in ("cp437", "utf-8", "latin-1", "ascii", "utf-16", "utf-16-le", "utf-16-be", "utf-8-sig", "utf-32"):
        codecs.lookup(encoding)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"a" * 99)
    wrapped = io.BytesIO()
    with tarfile.open(fileobj=wrapped, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a"))
    tarred = wrapped.getvalue()
    for data in (packed.getvalue(), tarred, gzip.compress(tarred), bz2.compress(tarred), lzma.compress(tarred)):
        ChildLooker(limits, lambda frame: None, None).look(data, "", "")


def _movie(picture: Image.Image, format: str, codec: str) -> bytes:
    import av

    out = io.BytesIO()
    try:
        with av.open(out, "w", format=format) as container:
            stream = container.add_stream(codec, rate=5)
            if not isinstance(stream, av.VideoStream):
                return b""
            stream.width, stream.height = picture.size
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            stream.codec_context.thread_count = 1
            frame = av.VideoFrame(*picture.size, "rgb24")
            frame.planes[0].update(bytes(frame.planes[0].buffer_size))
            for moment in (frame, None):
                container.mux(stream.encode(moment))
    except (av.error.FFmpegError, ValueError):  # built without this encoder
        return b""
    return out.getvalue()


class ForkServer:
    """Forks, watches and reaps children; single-threaded."""

    def __init__(self, channel: socket.socket, limits: Limits, video: VideoDecoder | None) -> None:
        self._channel = channel
        self._limits = limits
        self._video = video
        self._children: dict[int, int] = {}  # process: its number

    def serve(self) -> None:
        """Answer requests and report ends of children until the other side closes."""
        wake, waker = os.pipe()
        for end in (wake, waker):
            os.set_blocking(end, False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the program's to answer
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        self._say({"ready": formats(self._video is not None), "pid": os.getpid()})
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(wake, select.POLLIN)
        try:
            while True:
                for descriptor, _ in poll.poll():
                    if descriptor == wake:
                        with suppress(BlockingIOError):
                            os.read(wake, 4096)
                        self._reap()
                    elif not self._answer():
                        return
        except (BrokenPipeError, ConnectionResetError):
            return
        finally:
            for process in self._children:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    def _say(self, message: dict[str, Any]) -> None:
        self._channel.send(json.dumps(message).encode())

    def _answer(self) -> bool:
        request, descriptors, _, _ = socket.recv_fds(self._channel, _REQUEST_BYTES, 2)
        if not request:
            return False
        order = json.loads(request)
        if "kill" in order:
            for process, number in self._children.items():
                if number == order["kill"]:
                    os.kill(process, signal.SIGKILL)
            return True
        try:
            self._fork(order, descriptors)
        except OSError as error:
            self._say({"ended": order["fork"], "status": None, "why": f"cannot fork: {error.strerror}"})
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _fork(self, order: dict[str, Any], descriptors: list[int]) -> None:
        parent = os.getpid()
        process = os.fork()
        if process:
            self._children[process] = order["fork"]
            return
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._child(order, descriptors, parent)
            status = 0
        except MemoryError:
            status = wire.EXHAUSTED
        finally:
            os._exit(status)  # whatever happened, this copy of the program never goes on

    def _child(self, order: dict[str, Any], descriptors: list[int], parent: int) -> None:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nowhere, standard)
        high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 16) for descriptor in descriptors]
        for descriptor, place in zip(high, (_REQUESTS, _RESULTS), strict=True):
            os.dup2(descriptor, place)
        _close_from(5)
        walls = Walls(self._limits.memory_mb << 20, self._limits.cpu_seconds * self._limits.objects_per_child)
        stands = self._lock(walls, parent)
        while (request := wire.read_request(_REQUESTS)) is not None:
            facts, data = request
            if facts.get("test"):
                wire.send(_RESULTS, b"S", json.dumps({"layers": stands, "answers": _attempts()}).encode())
            elif order.get("reduced") or all(stands.values()):
                signal.setitimer(signal.ITIMER_PROF, self._limits.cpu_seconds)  # the kernel ends the child when it rings
                wire.send_report(_RESULTS, self._look(facts, data))
            else:
                return

    def _lock(self, walls: Walls, parent: int) -> dict[str, bool]:
        return lockdown.lock(walls, parent)

    def _look(self, facts: dict[str, Any], data: bytes) -> wire.Report:
        looker = ChildLooker(self._limits, lambda frame: wire.send_frame(_RESULTS, frame), self._video)
        try:
            return looker.look(data, str(facts.get("claimed", "")), str(facts.get("ending", "")))
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - an error of ours that these bytes bring out must not pass for a look
            spot = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"an error of ours: {type(error).__name__} in {spot.name}, line {spot.lineno}: {error}"
            return wire.Report(reason=Reason.CRASHED, problem=problem)

    def _reap(self) -> None:
        while self._children:
            process, status, used = os.wait4(-1, os.WNOHANG)
            if not process:
                return
            number = self._children.pop(process, None)
            if number is not None:
                seconds = used.ru_utime + used.ru_stime
                self._say({"ended": number, "status": status, "cpu": seconds, "memory": used.ru_maxrss})


def _close_from(first: int) -> None:
    os.closerange(first, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _attempts() -> dict[str, str]:
    """Try everything the cage forbids, and say what the kernel answered: an error's name, or "allowed"."""
    attempts: dict[str, Callable[[], object]] = {
        "open": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "create": lambda: os.open("/tmp/fediwarden-cage", os.O_CREAT | os.O_WRONLY, 0o600),  # noqa: S108 - must fail
        "listdir": lambda: os.listdir("/"),  # noqa: PTH208 - pathlib is not preloaded
        "socket": socket.socket,
        "fork": _try_fork,
        "exec": lambda: os.execv("/nonexistent/program", ["program"]),  # noqa: S606 - refused before it is missed
        "kill": lambda: os.kill(os.getppid(), 0),
        "ptrace": _try_ptrace,
        "grow": lambda: os.write(os.memfd_create("grow"), b"x"),
    }
    answers = {}
    for name, attempt in attempts.items():
        try:
            attempt()
            answers[name] = "allowed"
        except OSError as error:
            refused = error.errno in (errno.EPERM, errno.EACCES, errno.EAGAIN)
            answers[name] = "refused" if refused else f"allowed ({error.strerror})"
    return answers


def _try_fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _try_ptrace() -> None:
    import ctypes

    call = {"x86_64": 101, "aarch64": 117}[os.uname().machine]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(call, 16, os.getppid(), 0, 0) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    sys.exit(main())
