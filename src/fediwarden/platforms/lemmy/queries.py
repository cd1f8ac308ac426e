"""Reads the named statements of this package's `.sql` files once; holds no SQL itself."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

FILES = {"0.19": "019", "1.0": "1"}  # versions of Lemmy whose database is known
BEFORE_LOCAL_IMAGE = ("local_image", "image_upload")  # the table's name until 0.19.3
OLDEST = "0.19.3"


@cache
def statements(kind: str, version: str) -> Mapping[str, str]:
    """Every statement of "trace" or "grants" for a version (0.19.3 stands for 0.19.0 to 0.19.3), by name."""
    name = FILES["0.19" if version == OLDEST else version]
    source = files("fediwarden.platforms.lemmy").joinpath("sql", f"{kind}_{name}.sql").read_text(encoding="utf-8")
    if version == OLDEST:
        source = source.replace(*BEFORE_LOCAL_IMAGE)
    found: dict[str, str] = {}
    for part in source.split("\n-- name: ")[1:]:
        title, _, body = part.partition("\n")
        found[title.strip()] = "\n".join(line for line in body.splitlines() if not line.startswith("--")).strip()
    return found


def grants(version: str, role: str, *, private_messages: bool) -> str:
    """What gives a role the right to be asked for a trace, and no other right."""
    quoted = '"' + role.replace('"', '""') + '"'
    named = statements("grants", version)
    parts = [named["grants"], *([named["private messages"]] if private_messages else [])]
    return "\n".join(parts) % {"role": quoted} + "\n"
