"""A process that has imported the program and forks a real, killable process for each command it is told, so that a test of a
hundred kills does not import a hundred times. A request may name the point before which the command shall die.

Run by `tests.support.crashes.Forks`; not a test.
"""

import contextlib
import gc
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import alembic.command  # noqa: F401 - only so that it is there before the fork
import asyncssh  # noqa: F401
import pyrage  # noqa: F401
import sqlalchemy.dialects.sqlite  # noqa: F401

import fediwarden.cli.main as main
from fediwarden import vault
from fediwarden.ledger import Ledger
from fediwarden.stores import files
from fediwarden.stores.sftp import Wire
from fediwarden.stores.sigv4 import S3Client

POINTS: list[tuple[Any, str]] = [
    *((Ledger, name) for name in ("begin", "end", "record", "clear", "did", "swept")),
    *((vault, name) for name in ("_stage", "_publish", "_rename")),
    *((files, name) for name in ("_move", "_write")),
    *((os, name) for name in ("unlink", "mkdir")),
    (S3Client, "send"),
    (Wire, "call"),
]


class Points:
    """Counts the points a command passes, and kills it before one of them."""

    def __init__(self, fatal: int | None) -> None:
        self.fatal = fatal
        self.passed = 0

    def wrap(self, owner: Any, name: str) -> None:
        """Make a function one of the points."""
        inner: Callable[..., Any] = getattr(owner, name)

        def point(*args: Any, **kwargs: Any) -> Any:
            self.passed += 1
            if self.passed == self.fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            return inner(*args, **kwargs)

        setattr(owner, name, point)


def command(request: dict[str, Any]) -> int:
    """In the forked process: become the command."""
    os.setsid()
    for number, path in ((0, "/dev/null"), (1, request["out"]), (2, request["err"])):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(request["environment"])
    tempfile.tempdir = None  # which the parent has asked for already
    os.chdir(request["cwd"])
    points = Points(request["fatal"])
    for owner, name in POINTS:
        points.wrap(owner, name)
    signal.signal(signal.SIGTERM, main._interrupt)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # as main.run does
    code = main.code_of(request["arguments"])
    gc.collect()  # closes the ledger, as the end of an interpreter does
    sys.stdout.flush()
    sys.stderr.flush()
    Path(request["points"]).write_text(str(points.passed))
    return code


def warm_up() -> None:
    """Do once, before the first fork, what every command would pay for anew; inference starts in each command itself."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(StringIO()), contextlib.redirect_stderr(StringIO()):
        os.environ["FEDIWARDEN_HOME"] = folder
        for arguments in (["init", "--profile", "other"], ["vault", "init"], ["apply", "--yes"]):
            assert main.code_of(arguments) == 0


def ended(child: int, after: float | None, timeout: float) -> str:
    """The exit status of a child that is killed after so many seconds; "late" where that was not meant to happen."""
    limit = timeout if after is None else after
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return str(os.waitstatus_to_exitcode(status))
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)  # not reaped yet, so it is still this child's number
    status = os.waitpid(child, 0)[1]
    return "late" if after is None else str(os.waitstatus_to_exitcode(status))


def serve() -> None:
    """One request a line; answers the exit status."""
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 70
            try:
                code = command(request)
            finally:
                os._exit(code)
        sys.stdout.write(f"{ended(child, request['after'], request['timeout'])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    warm_up()
    serve()
