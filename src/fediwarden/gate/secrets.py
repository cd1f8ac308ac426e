"""The secrets that callers of the gate carry in the URL: one a line in a file of the owner's; they stand in no log and no error."""

import hmac
import os
import re
import secrets
from pathlib import Path

from fediwarden.errors import CannotWrite, Misconfigured

HINT = "make one with `fediwarden gate --new-secret`"
SHORTEST = 24  # characters
ALPHABET = re.compile(r"[A-Za-z0-9._~-]+")  # what a URL's path holds unchanged
SAMPLES = re.compile(
    r"changeme|change[-_.]?this|example|sample|secret|password|passwd|apikey|api[-_.]?key|your[-_.]|placeholder|ipaddr|insert|dummy|default|replace",
    re.IGNORECASE,
)


class Secrets:
    """The valid secrets. Its `repr` shows none."""

    def __init__(self, valid: tuple[str, ...]) -> None:
        self._valid = tuple(secret.encode() for secret in valid)
        self.first = valid[0]

    def fit(self, given: str) -> bool:
        """Whether it is one of them, in a time that does not depend on how much of it is right."""
        data = given.encode("utf-8", "surrogatepass")
        found = False
        for secret in self._valid:
            found |= hmac.compare_digest(secret, data)
        return found


def read(file: Path) -> Secrets:
    """The secrets in the file. Raises: Misconfigured, never with a secret in its words."""
    found = _lines(file)
    if not found:
        raise Misconfigured(f"the gate has no secret: {file} is empty", hint=HINT)
    return Secrets(tuple(found))


def _lines(file: Path) -> list[str]:
    try:
        mode = file.stat().st_mode
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise Misconfigured(f"the gate has no secret: there is no file {file}", hint=HINT) from error
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"the gate's secrets in {file} cannot be read: {type(error).__name__}", hint=HINT) from error
    if mode & 0o077:
        raise Misconfigured(f"others than its owner can read the gate's secrets in {file}", hint=f"chmod 600 {file}")
    found: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        secret = line.strip()
        if not secret or secret.startswith("#"):
            continue
        if wrong := _wrong(secret):
            raise Misconfigured(f"{file}, line {number}: a secret that {wrong}", hint=HINT)
        found.append(secret)
    return found


def _wrong(secret: str) -> str:
    """What is wrong with a secret; "" where nothing is."""
    if len(secret) < SHORTEST:
        return f"has fewer than {SHORTEST} characters"
    if not ALPHABET.fullmatch(secret):
        return "holds more than letters, digits and . _ ~ -"
    if SAMPLES.search(secret):
        return "looks like a sample out of a documentation"
    if len(set(secret)) < 8:
        return "repeats itself"
    return ""


def add(file: Path) -> None:
    """Add a new random secret as the last line; the file is made if it is not there. Raises: CannotWrite, Misconfigured."""
    begin = ""
    if file.exists():
        _lines(file)
        begin = "" if file.read_bytes()[-1:] in (b"", b"\n") else "\n"
    while _wrong(secret := secrets.token_urlsafe(30)):  # it may spell a word
        continue
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as out:
            out.write(f"{begin}{secret}\n")
    except OSError as error:
        raise CannotWrite(f"cannot write {file}: {error.strerror}", hint="check who owns its folder") from error
