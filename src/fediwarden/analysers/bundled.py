"""The embedded default: explicit-content scores and the apparent age of visible faces, from models in pinned wheels.

Nothing here joins the scores; which of them together mean something is the policy's matter.
"""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
from PIL import Image

from fediwarden.analysers import age, explicit, exposed
from fediwarden.inference import registry
from fediwarden.inference.sessions import OnnxSession
from fediwarden.model import Finding, Frame


class Bundled:
    """Per frame one "exposed" and one "explicit" finding, and a "face" finding for each visible face."""

    def __init__(self, models_dir: Path, *, threads: int = 1) -> None:
        """Load and verify the models. `threads` is per call: 1 where workers share the analyser.

        Raises: Misconfigured for a missing or altered model, or a missing runtime.
        """
        parts: dict[str, registry.Model] = {
            name: registry.load(models_dir, name) for name in (exposed.MODEL, explicit.MODEL, age.MODEL)
        }
        landmarks = registry.load_landmarks(models_dir, age.LANDMARK_MODEL)

        def weights(name: str) -> str:
            return parts[name].manifest.files[0].sha256

        detector = exposed.detector(parts[exposed.MODEL].only, threads=threads)
        whole, ages = (OnnxSession(parts[name].only, name=name, threads=threads) for name in (explicit.MODEL, age.MODEL))
        self._exposed = exposed.Exposed(detector)
        self._explicit = explicit.Explicit(whole)
        self._age = age.Age(landmarks, ages)
        self._devices = frozenset(session.device for session in (detector, whole, ages))
        self._exposed_version = _digest(weights(exposed.MODEL), exposed.PREPROCESSING)
        self._explicit_version = _digest(weights(explicit.MODEL), explicit.PREPROCESSING)
        self._face_version = _digest(self._exposed_version, weights(age.MODEL), landmarks.digest, age.PREPROCESSING)
        self._version = _digest(self._exposed_version, self._explicit_version, self._face_version)

    @property
    def name(self) -> str:
        """See `Analyser.name`."""
        return "bundled"

    @property
    def version(self) -> str:
        """Digest of the weights of all models and of what is done before and after them."""
        return self._version

    @property
    def device(self) -> str:
        """Where the models run: "cpu"."""
        return "+".join(sorted(self._devices))

    def analyse(self, frames: Sequence[Frame]) -> list[Finding]:
        """See `Analyser.analyse`. Frame by frame: on a processor a batch takes as long as its frames."""
        found: list[Finding] = []
        for frame in frames:
            image = Image.frombuffer("RGB", (frame.width, frame.height), frame.rgb, "raw", "RGB", 0, 1)
            part, faces = self._exposed.look(image)
            whole = self._explicit.look(image)
            place = (frame.index, frame.source)
            found.append(Finding("exposed", part, "bundled/exposed", self._exposed_version, *place))
            found.append(Finding("explicit", whole, "bundled/explicit", self._explicit_version, *place))
            if not faces:
                continue
            pixels = np.frombuffer(frame.rgb, np.uint8).reshape(frame.height, frame.width, 3)
            for face, looks in zip(faces, self._age.look(pixels, image, faces), strict=True):
                measures = {"side": face.side, "age": looks.years, "under_18": looks.under_18}
                found.append(Finding("face", face.score, "bundled/age", self._face_version, *place, measures=measures))
        return found


def _digest(*parts: str) -> str:
    return sha256("\n".join(parts).encode()).hexdigest()[:16]
