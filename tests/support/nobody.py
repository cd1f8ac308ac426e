"""A Python that the user nobody may run: the one that runs the tests, or a copy where that one lies in a private folder (such as root's)."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from tests.support.disks import NOBODY

import fediwarden

NOT_NEEDED = (
    "mypy*",
    "*__mypyc*",
    "pip",
    "pip-*",
    "setuptools*",
    "pkg_resources",
    "hypothesis*",
    "fediwarden*",
    "_fediwarden*",
    "*.pth",
)


@pytest.fixture(scope="session")
def python_for_nobody() -> Generator[str]:
    """A Python with the program in it. Where the tests run as nobody special, their own will do."""
    if os.geteuid() != 0 or _may_run(sys.executable):
        yield sys.executable
        return
    folder = Path(tempfile.mkdtemp(prefix="fediwarden-nobody-"))
    try:
        folder.chmod(0o755)
        yield _copy(folder)
    finally:
        shutil.rmtree(folder)


def _copy(folder: Path) -> str:
    """An environment with the same packages and the program's present sources, readable by all."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    own = Path(sys.prefix) / packages.relative_to(folder)
    shutil.copytree(own, packages, ignore=shutil.ignore_patterns(*NOT_NEEDED), dirs_exist_ok=True)
    shutil.copytree(Path(fediwarden.__file__).parent, packages / "fediwarden")
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)
    python = str(folder / "bin" / "python")
    assert _may_run(python), f"{os.path.realpath(sys.executable)} lies where nobody may not go; make .venv with Debian's Python"
    return python


def _may_run(python: str) -> bool:
    """Whether nobody can start the program with it."""
    try:
        return (
            subprocess.run(
                [python, "-I", "-c", "import fediwarden.model"],
                cwd="/",
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                env={},
                capture_output=True,
                check=False,
            ).returncode
            == 0
        )
    except PermissionError:
        return False
