"""ONNX Runtime sessions: the bytes of a model in, arrays out; where the bytes come from is `registry`'s matter.

The runtime is imported with the first session and not before, and its telemetry is switched off.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from typing import Any, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from fediwarden.errors import Misconfigured, Unreached

log = structlog.get_logger("fediwarden")

CPU = "cpu"
PROVIDERS: Mapping[str, str] = {
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "directml": "DmlExecutionProvider",
    CPU: "CPUExecutionProvider",
}
_NO_MEMORY = ("out of memory", "failed to allocate", "alloc_failed", "allocaterawinternal", "bad allocation", "bad_alloc")


class ModelSession(Protocol):
    """One loaded model with one input and one output. May be used from any number of threads at once."""

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """The model's first output for this input; both carry the batch as their first dimension."""
        ...


class OutOfMemory(Exception):
    """The device has not enough memory for this batch; a smaller one may fit."""


class Failed(Exception):
    """The runtime or its device gave no answer for reasons of its own."""


def runtime() -> Any:
    """The module onnxruntime, silent. Raises: Misconfigured where it is not installed."""
    # before the import, which is when the runtime writes to TMPDIR and begins to report home; its function of this
    # purpose can only be called after that
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        import onnxruntime  # type: ignore[import-untyped]
    except ImportError as error:
        raise Misconfigured("ONNX Runtime is not installed", hint="pip install 'fediwarden[cpu]'") from error
    onnxruntime.disable_telemetry_events()
    return onnxruntime


def devices() -> tuple[str, ...]:
    """What this installation of the runtime could compute on, the fastest first; whether it really does shows at a session.

    Raises: Misconfigured where the runtime is not installed.
    """
    there = set(runtime().get_available_providers())
    return tuple(device for device, provider in PROVIDERS.items() if provider in there)


class OnnxSession:
    """A model on one device of ONNX Runtime, which releases the interpreter's lock while it computes."""

    def __init__(self, model: bytes, *, name: str, threads: int = 1, device: str = CPU) -> None:
        """Load the model from memory.

        `threads` is how many threads one call may use: 1 where several workers share the session (then no pool exists and
        the caller's own thread computes), more where one picture must be fast. Raises: Misconfigured when the runtime is
        not installed, does not accept the model, or cannot use the device.
        """
        onnxruntime = runtime()
        if PROVIDERS[device] not in onnxruntime.get_available_providers():
            raise _no_device(device)
        if device in ("cuda", "tensorrt"):  # the libraries that pip installed beside the runtime; it talks on stdout
            with redirect_stdout(sys.stderr):
                onnxruntime.preload_dlls()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; warnings about optional hardware help nobody here
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # tensor cores would round fp32 models to ten bits of precision, and scores with them
        precise = {"use_tf32": "0"} if device == "cuda" else {}
        providers = [(PROVIDERS[device], precise), PROVIDERS[CPU]] if device != CPU else [PROVIDERS[CPU]]
        try:
            self._session: Any = onnxruntime.InferenceSession(model, options, providers=providers)
        except Exception as error:  # the runtime's own errors have no root of their own
            raise Misconfigured(f"the runtime does not accept the model {name}: {_first_line(error)}") from error
        if self.device != device:  # it falls back by itself, and only says so on a stream of its own
            raise _no_device(device)
        self._input: str = self._session.get_inputs()[0].name
        self._output: str = self._session.get_outputs()[0].name

    @property
    def device(self) -> str:
        """Where the runtime really computes, as it says itself: "cpu"."""
        provider: str = self._session.get_providers()[0]
        return next((device for device, known in PROVIDERS.items() if known == provider), provider)

    @property
    def shapes(self) -> tuple[Sequence[int | str | None], Sequence[int | str | None]]:
        """The shapes of input and output; what may vary is a name or None."""
        return self._session.get_inputs()[0].shape, self._session.get_outputs()[0].shape

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Session.run`. Raises: OutOfMemory, Failed."""
        try:
            (found,) = self._session.run([self._output], {self._input: batch})
        except Exception as error:  # the runtime's own errors have no root of their own
            said = str(error).lower()
            kind = OutOfMemory if any(word in said for word in _NO_MEMORY) else Failed
            raise kind(_first_line(error)) from error
        result: NDArray[np.float32] = found
        return result


class Steady:
    """A session that goes on: halves a batch that does not fit, and falls back to the CPU when its device fails.

    An answer that is not a number counts as a failure of the device. On the CPU there is nothing to fall back to: then
    the failure is Unreached, so that what was to be looked at stays unsettled and is tried again.
    """

    def __init__(self, session: ModelSession, *, name: str, device: str, fallback: Callable[[], ModelSession] | None) -> None:
        """`fallback` makes the CPU session when it is needed; None where `session` is that."""
        self._session = session
        self._name = name
        self._fallback = fallback
        self._lock = threading.Lock()
        self._most = 1 << 30  # the largest batch that is tried; halved when one did not fit
        self.device = device  # where it computes now

    def hold(self) -> None:
        """No falling back from here on: what another device answers would be another engine's."""
        self._fallback = None

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Session.run`. Raises: Unreached."""
        done: list[NDArray[np.float32]] = []
        start = 0
        while start < len(batch) or not done:
            part = batch[start : start + self._most]
            session = self._session
            try:
                found = session.run(part)
            except OutOfMemory as error:
                if len(part) > 1:
                    self._halve(len(part))
                else:
                    self._fall_back(session, str(error))
                continue
            except Failed as error:
                self._fall_back(session, str(error))
                continue
            if not np.isfinite(found).all():
                self._fall_back(session, "it answered with something that is not a number")
                continue
            done.append(found)
            start += max(1, len(part))
        return done[0] if len(done) == 1 else np.concatenate(done)

    def _halve(self, size: int) -> None:
        with self._lock:
            if self._most >= size:
                self._most = max(1, size // 2)
                log.warning("batch halved for want of memory", model=self._name, batch=self._most)

    def _fall_back(self, failed: ModelSession, problem: str) -> None:
        """Compute on the CPU from here on. Raises: Unreached where that is what failed."""
        with self._lock:
            if self._session is not failed:
                return  # another thread was faster
            if self._fallback is None:
                raise Unreached(f"the model {self._name} gave no answer: {problem}")
            log.warning("device lost, computing on the CPU", model=self._name, device=self.device, problem=problem)
            self._session = self._fallback()
            self._fallback = None
            self._most = 1 << 30
            self.device = CPU


class Batched:
    """Joins what several threads ask for at the same time into one batch: on a GPU, many pictures cost little more than one.

    Nobody waits for company: whoever finds the model free runs everything that has queued up meanwhile.
    """

    def __init__(self, session: ModelSession, most: int) -> None:
        """`most` is the largest batch that is made of several requests."""
        self._session = session
        self._most = most
        self._turn = threading.Lock()
        self._queue: deque[_Request] = deque()

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Session.run`; a failure reaches everyone whose pictures were in the batch."""
        request = _Request(batch)
        self._queue.append(request)
        with self._turn:
            while not request.done:
                self._serve()
        if request.error is not None:
            raise request.error
        assert request.found is not None  # noqa: S101 - it is done, and without an error
        return request.found

    def _serve(self) -> None:
        taken = [self._queue.popleft()]
        size = len(taken[0].batch)
        while self._queue and size + len(self._queue[0].batch) <= self._most:
            taken.append(self._queue.popleft())
            size += len(taken[-1].batch)
        try:
            found = self._session.run(np.concatenate([one.batch for one in taken]) if len(taken) > 1 else taken[0].batch)
        except Exception as error:  # noqa: BLE001 - each caller raises it in its own thread
            for one in taken:
                one.end(None, error)
            return
        start = 0
        for one in taken:
            one.end(found[start : start + len(one.batch)], None)
            start += len(one.batch)


class _Request:
    __slots__ = ("batch", "done", "error", "found")

    def __init__(self, batch: NDArray[np.float32]) -> None:
        self.batch = batch
        self.done = False
        self.found: NDArray[np.float32] | None = None
        self.error: Exception | None = None

    def end(self, found: NDArray[np.float32] | None, error: Exception | None) -> None:
        self.found, self.error = found, error
        self.done = True


def open_session(model: bytes, *, name: str, device: str = CPU, threads: int = 1, most: int = 32) -> tuple[ModelSession, Steady]:
    """A session as analysers use it, and the part of it that knows where it computes.

    On the CPU every caller computes in its own thread, since a batch takes as long as its pictures there; elsewhere what
    several threads ask for is joined, up to `most` pictures. Raises: Misconfigured as `OnnxSession`.
    """
    session = OnnxSession(model, name=name, threads=threads, device=device)
    if device == CPU:
        alone = Steady(session, name=name, device=CPU, fallback=None)
        return alone, alone
    steady = Steady(session, name=name, device=device, fallback=lambda: OnnxSession(model, name=name, threads=threads))
    return Batched(steady, most), steady


def _no_device(device: str) -> Misconfigured:
    return Misconfigured(
        f"the runtime cannot compute on {device} here",
        hint='check the driver and the installed runtime (`fediwarden doctor`), or set [analysis] device = "cpu"',
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300] or type(error).__name__
