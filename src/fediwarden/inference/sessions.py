"""ONNX Runtime sessions: the bytes of a model in, arrays out; where the bytes come from is `registry`'s matter.

The runtime is imported with the first session and not before, and its telemetry is switched off.
"""

import os
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fediwarden.errors import Misconfigured


class Session(Protocol):
    """One loaded model with one input and one output. May be used from any number of threads at once."""

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """The model's first output for this input; both carry the batch as their first dimension."""
        ...


class OnnxSession:
    """A model on the CPU provider of ONNX Runtime, which releases the interpreter's lock while it computes."""

    def __init__(self, model: bytes, *, name: str, threads: int = 1) -> None:
        """Load the model from memory.

        `threads` is how many threads one call may use: 1 where several workers share the session (then no pool exists and
        the caller's own thread computes), more where one picture must be fast. Raises: Misconfigured when the runtime is
        not installed or does not accept the model.
        """
        # before the import, which is when the runtime writes to TMPDIR and begins to report home; its function of this
        # purpose can only be called after that
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        try:
            import onnxruntime  # type: ignore[import-untyped]
        except ImportError as error:
            raise Misconfigured("ONNX Runtime is not installed", hint="pip install 'fediwarden[cpu]'") from error
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors; warnings about optional hardware help nobody here
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's own errors have no root of their own
            raise Misconfigured(f"the runtime does not accept the model {name}: {error}") from error
        self._input: str = self._session.get_inputs()[0].name
        self._output: str = self._session.get_outputs()[0].name

    @property
    def device(self) -> str:
        """Where the runtime really computes, as it says itself: "cpu"."""
        provider: str = self._session.get_providers()[0]
        return provider.removesuffix("ExecutionProvider").lower()

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `Session.run`."""
        (found,) = self._session.run([self._output], {self._input: batch})
        result: NDArray[np.float32] = found
        return result
