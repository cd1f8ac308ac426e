"""Keys as people may see them and as the file systems must not; nothing here opens anything."""


def shown(key: str, most: int = 160) -> str:
    """A hostile key in quotes, on one line, without control or direction characters, cut after `most` characters."""
    cut = key if len(key) <= most else key[: most - 1] + "…"
    return repr(cut)


def parts_of(key: str) -> tuple[str, ...] | None:
    """The components of a relative path, or None where the key cannot name a file below a root.

    Walking the file system yields only keys for which this is not None, so everything else names nothing.
    """
    parts = tuple(key.split("/"))
    if "\0" in key or any(part in ("", ".", "..") for part in parts):
        return None
    return parts
