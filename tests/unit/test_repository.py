"""What holds for the repository as a whole: its files, its locks, and what it is packed into."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted(ROOT.glob("requirements/*.lock"))
LARGEST = 1 << 20


def git(*arguments: str) -> list[str]:
    """What git lists, entry by entry; the checkout may belong to somebody else."""
    command = ["git", "-c", f"safe.directory={ROOT}", *arguments, "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True)
    return [entry for entry in done.stdout.split("\0") if entry]


def tracked(below: str = "") -> list[Path]:
    """The tracked files that are there."""
    return [ROOT / name for name in git("ls-files", *([below] if below else [])) if (ROOT / name).is_file()]


def mentions(pattern: str) -> list[str]:
    """Where tracked files match, as file:line: text."""
    found = []
    for path in tracked():
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            if re.search(pattern, line, re.IGNORECASE):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:200]}")
    return found


def requirements(lock: Path) -> list[str]:
    """A lock's entries, each with its continuation lines, without comments."""
    lines = [line for line in lock.read_text().splitlines() if not line.lstrip().startswith("#")]
    return [entry for entry in "\n".join(lines).replace("\\\n", " ").splitlines() if entry.strip()]


def test_no_tracked_file_is_larger_than_a_mebibyte() -> None:
    assert [str(path) for path in tracked() if path.stat().st_size > LARGEST] == []


def test_no_file_names_the_address_of_a_package_registry() -> None:
    hosts = ("py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "crates" + ".io", "anaconda" + ".org")

    assert mentions("|".join(map(re.escape, hosts))) == []


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    assert mentions(r"(?<![\w.~])/(?:wo" + r"rk|ro" + r"ot|ho" + r"me/\w+)/") == []


def test_the_commands_are_executable() -> None:
    modes = {entry.partition("\t")[2]: entry.split()[0] for entry in git("ls-files", "--stage", "run", "test", ".ci/run")}

    assert modes == dict.fromkeys(("run", "test", ".ci/run"), "100755")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_pins_every_package_by_version_and_hash_and_names_no_address(lock: Path) -> None:
    entries = requirements(lock)

    assert len(entries) > 0
    assert [entry for entry in entries if not re.match(r"[a-z0-9._-]+==[^ ]+ .*--hash=sha256:[0-9a-f]{64}", entry)] == []
    assert "://" not in lock.read_text()
    assert "--index" not in lock.read_text()
    assert "--find-links" not in lock.read_text()


def test_the_locks_agree_with_one_another_and_hold_all_that_is_declared() -> None:
    pinned: dict[str, set[str]] = {}
    for lock in LOCKS:
        for entry in requirements(lock):
            name, _, version = entry.split()[0].partition("==")
            pinned.setdefault(name, set()).add(version)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # PyTorch and NVIDIA's libraries are some gigabytes: whoever needs them installs them without a lock, and nothing here does
    extras = [needed for extra, needed in project["optional-dependencies"].items() if extra not in ("build-torch", "cuda")]
    declared = {
        re.split(r"[><=\[; ]", text)[0] for text in [*project["dependencies"], *(one for extra in extras for one in extra)]
    }
    in_run_lock = {entry.split("==")[0] for entry in requirements(ROOT / "requirements/run.lock")}

    assert {name: versions for name, versions in pinned.items() if len(versions) > 1} == {}
    assert declared - {"fediwarden"} - in_run_lock == set()


def test_the_wheel_and_the_source_archive_hold_every_file_of_the_program_and_the_licence(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--target", "sdist", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    (source,) = tmp_path.glob("*.tar.gz")
    program = {str(path.relative_to(ROOT)) for path in tracked("src/fediwarden")}
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    with tarfile.open(source) as archive:
        unpacked = {name.partition("/")[2] for name in archive.getnames()}

    assert {name.removeprefix("src/") for name in program} <= packed
    assert any(name.endswith("/licenses/LICENSE") for name in packed)
    assert {name for name in packed if not name.startswith("fediwarden")} == set()
    assert program | {"LICENSE", "README.md", "pyproject.toml"} <= unpacked
