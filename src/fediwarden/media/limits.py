"""What one look may cost and how closely it looks; plain numbers that travel to the cage, no behaviour."""

from dataclasses import asdict, dataclass, fields, replace


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the cage. All but times and `objects_per_child` decide what is seen."""

    wall_seconds: float = 120.0  # without any message from the child
    cpu_seconds: int = 60
    memory_mb: int = 1536  # over what the preloaded parent holds
    max_pixels: int = 120_000_000  # of one frame, as it must be held while decoding
    all_frames: int = 64  # up to this many, every frame or page is looked at
    frames_per_second: float = 2.0  # beyond that, at least this often
    frame_bound: int = 256  # but never more frames than this
    frame_edge: int = 1280  # longest edge of a still that leaves the cage
    animated_edge: int = 640  # the same for frames of animations and videos
    draft_edge: int = 640  # JPEGs are decoded at the smallest eighth of their size not below this
    archive_depth: int = 3
    archive_mb: int = 64  # unpacked, of all archives in one object together
    embedded: int = 64  # pictures and videos found inside one object
    objects_per_child: int = 24  # one child looks at this many at most, and only while each was a plain, whole picture
    views: int = 1024  # frames, tiles and grounds of one object together

    def as_json(self) -> dict[str, int | float]:
        """For the preloaded parent's command line."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, int | float]) -> "Limits":
        """The inverse of `as_json`; unknown names raise TypeError."""
        given = cls()
        for field in fields(cls):
            given = replace(given, **{field.name: type(getattr(given, field.name))(values[field.name])})
        return given

    def what_is_seen(self) -> tuple[tuple[str, int | float], ...]:
        """The limits that decide what a look sees, in a stable order."""
        return tuple((f.name, getattr(self, f.name)) for f in fields(self) if f.name not in ("wall_seconds", "objects_per_child"))
