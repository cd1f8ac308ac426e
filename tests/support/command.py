"""The command line as an administrator uses it, in a home of its own: real processes, real exit codes; for tests only."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from tests.support.processes import started

from fediwarden.ledger import Ledger
from fediwarden.model import Sha256
from fediwarden.vault import Vault, read_recipients

HOUR = 3600
POLICY = """# animations and bitmaps stand in for what a real policy hides: benign pictures, real decisions
version = 1
name = "stand-in"

[mark.drill]
finding = "drill"
score = 1.0

[mark.bitmap]
format = ["bmp"]

[mark.animation]
format = ["gif"]

[[rule]]
name = "drill"
all = ["drill"]
step = "quarantine"
rank = 100
because = "a drill picture"

[[rule]]
name = "bitmap"
all = ["bitmap"]
step = "quarantine"
rank = 20
because = "bitmaps stand in for the worst"

[[rule]]
name = "animation"
all = ["animation"]
step = "quarantine"
rank = 10
because = "animations stand in for what is hidden"
"""


@dataclass(frozen=True)
class Ran:
    """One finished command."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Standard output as JSON, an object a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def last(self) -> dict[str, Any]:
        """The last JSON object."""
        return self.lines[-1]


@dataclass
class Home:
    """A FEDIWARDEN_HOME. `settings` are environment variables over its configuration file."""

    folder: Path
    settings: dict[str, str] = field(default_factory=dict)
    python: str = sys.executable
    forked: Callable[..., Ran | None] | None = None  # runs a command without importing the program anew; None where it is busy

    @property
    def environment(self) -> dict[str, str]:
        """What its processes are given; nothing of the developer's own settings."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("FEDIWARDEN_", "AWS_", "COVERAGE_"))}
        return {**own, "FEDIWARDEN_HOME": str(self.folder), "PYTHONUNBUFFERED": "1", "COLUMNS": "200", **self.settings}

    def command(self, *arguments: str | Path) -> list[str]:
        """The command line of one call."""
        return [self.python, "-m", "fediwarden.cli.main", *map(str, arguments)]

    def run(self, *arguments: str | Path, expect: int | None = 0, user: int | None = None, timeout: float = 120) -> Ran:
        """Run one command to its end; `expect` is the promised exit code, None any."""
        if self.forked is not None and user is None and self.python == sys.executable:
            told = self.forked(self, *arguments, expect=expect, timeout=timeout)
            if told is not None:
                return told
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment,
            cwd=self.folder.parent if user is None else "/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=timeout,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
        ran = Ran(done.returncode, done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode("utf-8", "surrogateescape"))
        assert expect is None or ran.code == expect, (arguments, ran.code, ran.out[-3000:], ran.err[-3000:])
        return ran

    def start(self, *arguments: str | Path) -> "subprocess.Popen[bytes]":
        """Start one command and come back at once."""
        return started(
            subprocess.Popen(
                self.command(*arguments),
                env=self.environment,
                cwd=self.folder.parent,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )

    def add_store(self, name: str, **values: object) -> None:
        """A `[stores.NAME]` block at the end of the configuration file."""
        lines = [f"\n[stores.{name}]"]
        for key, value in values.items():
            lines.append(f"{key} = {json.dumps(str(value) if isinstance(value, Path) else value)}")
        with (self.folder / "fediwarden.toml").open("a") as file:
            file.write("\n".join(lines) + "\n")

    def copy(self, to: Path) -> "Home":
        """The same home elsewhere, with everything that lies in it; models stay where they are."""
        shutil.copytree(self.folder, to, symlinks=True)
        return replace(self, folder=to, settings=dict(self.settings))

    @contextmanager
    def ledger(self) -> Iterator[Ledger]:
        """The ledger, to look into."""
        with Ledger.open(self.folder / "ledger.sqlite3", read_only=True) as ledger:
            yield ledger

    @property
    def identities(self) -> list[Path]:
        """The vault's private keys, which `vault init` left here."""
        return sorted((self.folder / "vault-keys").glob("*.txt"))

    def vault(self, *, drill: bool = False) -> Vault:
        """The vault, to look into."""
        return Vault(self.folder / ("vault-drill" if drill else "vault"), read_recipients(self.folder / "recipients.txt"))

    def unsealed(self, data: bytes) -> bool:
        """Whether the vault gives back exactly these bytes with one of its keys."""
        name = Sha256(sha256(data).hexdigest())
        vault = self.vault()
        return vault.check(name) and vault.open(name, self.identities[:1]) == data

    def events(self) -> list[dict[str, Any]]:
        """The log."""
        file = self.folder / "fediwarden.log"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def write(folder: Path, files: Mapping[str, bytes], age: float = HOUR) -> None:
    """Files with old times, so that no scan waits for them to settle."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (path.stat().st_mtime - age,) * 2)


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by relative name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def listed(totals: Mapping[str, Any]) -> int:
    """What `listed` must be, from the parts."""
    return sum(int(totals[name]) for name in ("skipped", "seen", "broken", "gone", "unreached"))


def by_key(lines: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """`list --json` by key."""
    return {str(line["key"]): line for line in lines}
