"""Looks at bytes through a real cage and keeps everything that came out; for tests only (it holds all frames at once)."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fediwarden.media import Cage, Limits, Report
from fediwarden.model import Blob, Frame, ObjectRef, StoreName

ROOT = Path(__file__).parents[2]


@dataclass
class Seen:
    """All frames and the report of one look."""

    frames: list[Frame]
    report: Report

    @cached_property
    def sources(self) -> set[str]:
        return {frame.source for frame in self.frames}

    @property
    def notes(self) -> set[tuple[str, str]]:
        return {(note.what, note.where) for note in self.report.notes}

    @property
    def whys(self) -> set[str]:
        return {unopened.why for unopened in self.report.unopened}


def boot(call: str) -> str:
    """What a preloaded process of `tests.support.misbehaving` runs."""
    paths = "import sys; sys.path.append(sys.argv.pop(1))"
    return f"{paths}; sys.path.append({str(ROOT)!r}); from tests.support.misbehaving import *; {call}"


class MisbehavingCage(Cage):
    """Its children obey orders in the bytes they are given."""

    _boot = boot("obeying()")


def blob(data: bytes, key: str = "object", claimed: str = "") -> Blob:
    return Blob.of(ObjectRef(StoreName("test"), key, len(data), "1"), data, claimed)


def look(cage: Cage, data: bytes, key: str = "object", claimed: str = "") -> Seen:
    with cage.look(blob(data, key, claimed)) as peek:
        frames = list(peek.frames())
        return Seen(frames, peek.report)


def pixels(frame: Frame) -> npt.NDArray[np.uint8]:
    """Height x width x 3."""
    return np.frombuffer(frame.rgb, np.uint8).reshape(frame.height, frame.width, 3)


def opened(limits: Limits | None = None) -> Iterator[Cage]:
    """For fixtures: a started cage, closed afterwards."""
    with Cage(limits or Limits()) as cage:
        yield cage
