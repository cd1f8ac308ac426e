"""A copy of what must not be lost, made while others write, and brought back into an empty home; never private keys or credentials.

A backup folder holds one folder for each backup, with the ledger, the configuration's files and a manifest of hashes, and beside them
the sealed evidence, which is only added to: it never changes once it is written. Nothing here opens what is sealed.
"""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256 as hasher
from pathlib import Path
from typing import Any

from fediwarden import __version__, config
from fediwarden.config import CONFIG_NAME, Configuration
from fediwarden.errors import BadEvidence, Busy, CannotWrite, Misconfigured
from fediwarden.ledger import Ledger
from fediwarden.ledger.database import MEMORY, location
from fediwarden.ledger.maintenance import knows_tables, tables_of
from fediwarden.ledger.migrate import HEAD
from fediwarden.vault import SECRET, UNFINISHED

FORMAT = 1
MANIFEST = "manifest.json"
LEDGER = "ledger.sqlite3"
VAULTS = {"vault": False, "vault-drill": True}  # the folder in a backup: whether it is the one of drill pictures
DATED = re.compile(r"\d{8}T\d{6}\.\d{6}Z")
PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class Held:
    """One file of a backup."""

    path: str  # relative to the backup folder (sealed evidence) or to its dated folder (all else)
    size: int
    sha256: str


@dataclass(slots=True)
class Made:
    """What one backup did."""

    folder: Path
    files: int = 0
    sealed: int = 0  # files of the vaults in the backup
    added: int = 0  # of these, copied now
    bytes: int = 0  # copied now
    removed: int = 0  # older backups taken away
    left_out: list[str] = field(default_factory=list)  # files that hold a private key
    problems: list[str] = field(default_factory=list)  # evidence that is not as it was written


@dataclass(slots=True)
class Restored:
    """What was brought back."""

    made_at: str
    files: int = 0
    sealed: int = 0
    upgraded: str = ""  # "0003 to 0005" when the ledger was written by an older program
    notes: list[str] = field(default_factory=list)


def make(configuration: Configuration, folder: Path, now: datetime, keep: int) -> Made:
    """Write one more backup into `folder`, and leave the newest `keep` (0: all). The ledger comes first: whatever it calls
    sealed is in the vault by then.

    Raises: Misconfigured (no ledger; the folder lies inside the vault), CannotWrite, Busy.
    """
    for drill in VAULTS.values():
        vault = _vault(configuration, drill).resolve()
        if folder.resolve() == vault or vault in folder.resolve().parents:
            raise Misconfigured(f"{folder} lies inside the vault", hint="name a folder on another disk")
    name = now.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    made = Made(folder / name)
    with _plainly(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(folder):
            for left in folder.glob(f"*{UNFINISHED}"):
                shutil.rmtree(left)
            known = _known(folder)
            staged = folder / f"{name}{UNFINISHED}"
            staged.mkdir(mode=0o700)
            with Ledger.open(configuration.path(configuration.settings.ledger.url), read_only=True) as ledger:
                ledger.maintenance.copy_to(staged / LEDGER)
                installation = ledger.installation
            held = [_held(staged, LEDGER)]
            outside: dict[str, str] = {}
            for path, source in _files(configuration, outside):
                data = source.read_bytes()
                if SECRET.encode() in data.upper():
                    made.left_out.append(str(source))
                    continue
                target = staged / path
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                _write(target, data)
                held.append(_held(staged, path))
            made.files = len(held)
            sealed = list(_add_vaults(configuration, folder, known, made))
            made.sealed = len(sealed)
            content = {
                "format": FORMAT,
                "made_at": now.astimezone(UTC).isoformat(),
                "program": __version__,
                "tables": tables_of(staged / LEDGER),
                "installation": installation,
                "outside": outside,
                "files": [_told(file) for file in held],
                "sealed": [_told(file) for file in sealed],
            }
            _write(staged / MANIFEST, json.dumps(content, indent=1, ensure_ascii=True).encode() + b"\n")
            _sync(staged)
            staged.rename(made.folder)
            _sync(folder)
            made.removed = _thin_out(folder, keep)
    return made


def check(folder: Path) -> list[str]:
    """What of a backup (the newest in `folder`, or a dated folder) is not as it was written, a line each; everything is read.

    Raises: Misconfigured where there is no backup.
    """
    dated = find(folder)
    content = _manifest(dated)
    problems = []
    for base, files in ((dated, _list(content, "files")), (dated.parent, _list(content, "sealed"))):
        for file in files:
            try:
                found = _held(base, file.path)
            except OSError as error:
                problems.append(f"{base / file.path}: {error.strerror}")
                continue
            if found != file:
                problems.append(f"{base / file.path} is not what was written")
    return problems


def find(folder: Path) -> Path:
    """The dated folder meant: `folder` itself, or the newest backup in it. Raises: Misconfigured where there is none."""
    if (folder / MANIFEST).is_file():
        return folder.absolute()
    try:
        dated = _dated(folder)
    except OSError as error:
        raise Misconfigured(f"cannot read {folder}: {error.strerror}", hint="name the folder that `backup` wrote into") from error
    if not dated:
        raise Misconfigured(f"there is no backup in {folder}", hint="name the folder that `backup` wrote into")
    return dated[-1].absolute()


def restore(folder: Path, environment: Mapping[str, str]) -> Restored:
    """Bring a backup back into a home that has nothing of its own yet; broken off, the same call goes on from there.

    Every file is held against the manifest before anything is written, and the ledger is opened (and brought up to date) at the end.

    Raises: Misconfigured (no backup; written by a newer program; something else lies where it belongs), BadEvidence, CannotWrite.
    """
    dated = find(folder)
    content = _manifest(dated)
    tables = str(content.get("tables"))
    if not knows_tables(tables):
        raise Misconfigured(
            f"this backup was made by a newer version of this program ({content.get('program')}, tables {tables})",
            hint="install that version, or a newer one",
        )
    if problems := check(dated):
        raise BadEvidence(
            f"this backup is damaged: {problems[0]}" + (f", and {len(problems) - 1} more" if len(problems) > 1 else ""),
            hint="`fediwarden backup FOLDER --check` lists everything; name an older dated folder to restore that one",
        )
    files, sealed = _list(content, "files"), _list(content, "sealed")
    home = config.home(environment)
    configuration = _configuration(dated, home, environment)
    ledger = Path(location(configuration.path(configuration.settings.ledger.url)))
    if str(ledger) == MEMORY:
        raise Misconfigured("a ledger in memory cannot be brought back", hint="set [ledger] url to a file")
    targets: list[tuple[Path, Path, Held]] = []
    for file in sealed:
        top, _, rest = file.path.partition("/")
        targets.append((dated.parent / file.path, _vault(configuration, VAULTS[top]) / rest, file))
    for file in files:
        place, _, rest = file.path.partition("/")
        if file.path == LEDGER:
            targets.append((dated / file.path, ledger, file))
        else:
            targets.append((dated / file.path, home / (rest if place == "home" else file.path), file))
    targets.sort(key=lambda target: target[2].path == LEDGER)  # a home with a ledger is a home that is whole
    for left in (ledger.with_name(ledger.name + "-wal"), ledger.with_name(ledger.name + "-shm")):
        if left.exists():
            raise Misconfigured(f"{left} is there already", hint="restore into an empty home (FEDIWARDEN_HOME)")
    missing = [target for target in targets if not _there(target[1], target[2])]
    with _plainly(home):
        for source, target, file in missing:
            _copy(source, target, file)
    done = Restored(str(content["made_at"]), len(files), len(sealed))
    for path, origin in dict(content.get("outside", {})).items():
        done.notes.append(f"{home / path} was {origin}: put it there, or change the setting that names it")
    with Ledger.open(ledger) as opened:
        if problems := [*opened.maintenance.damage(), *opened.verify()]:
            raise BadEvidence(f"the ledger that was brought back does not agree with itself: {problems[0]}")
    done.upgraded = "" if tables == HEAD else f"{tables} to {HEAD}"
    return done


# -- what belongs into a backup ---------------------------------------------------------------------------------------


def _files(configuration: Configuration, outside: dict[str, str]) -> Iterator[tuple[str, Path]]:
    """Names in the backup and files of the configuration that exist; what lies elsewhere than in the home is noted in `outside`."""
    chosen = configuration.settings
    named = {"recipients": configuration.path(chosen.vault.recipients)}
    if chosen.policy.file:
        named["policy"] = configuration.path(chosen.policy.file)
    single = {
        "configuration": configuration.file,
        "catalogue": configuration.catalogue,
        "drill": configuration.drill_key,
        **named,
    }
    for role, file in single.items():
        if not file.is_file():
            continue
        if file.is_relative_to(configuration.home):
            yield f"home/{file.relative_to(configuration.home)}", file
        else:
            path = f"outside/{role}-{file.name}"
            outside[path] = str(file)
            yield path, file
    for place in (configuration.profiles, configuration.calibration):
        for file in sorted(place.glob("*")) if place.is_dir() else ():
            if file.is_file() and not file.name.startswith("."):
                yield f"home/{place.name}/{file.name}", file


def _vault(configuration: Configuration, drill: bool) -> Path:
    return configuration.drill_vault if drill else configuration.path(configuration.settings.vault.folder)


def _add_vaults(configuration: Configuration, folder: Path, known: Mapping[str, Held], made: Made) -> Iterator[Held]:
    """Everything sealed, copied where the backup lacks it. What the backup has already is never replaced."""
    for top, drill in VAULTS.items():
        vault = _vault(configuration, drill)
        for place in sorted(vault.iterdir()) if vault.is_dir() else ():
            if not place.is_dir() or place.is_symlink():
                continue
            for source in sorted(place.iterdir()):
                if source.name.endswith(UNFINISHED) or not source.is_file():
                    continue
                path = f"{top}/{place.name}/{source.name}"
                earlier = known.get(path)
                target = folder / path
                if earlier is not None and target.is_file() and target.stat().st_size == earlier.size:
                    if source.stat().st_size != earlier.size:
                        made.problems.append(f"{source} is not what was backed up before; the earlier copy was kept")
                    yield earlier
                    continue
                if not target.is_file():
                    _copy(source, target, None)
                    made.added += 1
                    made.bytes += target.stat().st_size
                held = _held(folder, path)
                if (told := _told_by_vault(source, made)) and told != held.sha256:
                    made.problems.append(f"{source} is not what its manifest says; copied as it is")
                yield held


def _told_by_vault(source: Path, made: Made) -> str:
    """The hash that the vault's own manifest gives for sealed bytes; "" for anything else."""
    if source.suffix != ".age":
        return ""
    for manifest in source.parent.glob(f"{source.stem}.*.json"):
        try:
            return str(json.loads(manifest.read_bytes())["ciphertext_sha256"])
        except (OSError, ValueError, KeyError, TypeError):
            made.problems.append(f"{manifest} cannot be read")
    return ""


def _configuration(dated: Path, home: Path, environment: Mapping[str, str]) -> Configuration:
    """The settings of the backup, with this environment over them, as they will be in `home`."""
    read = config.load({**environment, "FEDIWARDEN_HOME": str(dated / "home")})
    return replace(read, home=home, file=home / CONFIG_NAME)


# -- dated folders and manifests --------------------------------------------------------------------------------------


def _dated(folder: Path) -> list[Path]:
    return sorted(item for item in folder.iterdir() if DATED.fullmatch(item.name) and (item / MANIFEST).is_file())


def _known(folder: Path) -> dict[str, Held]:
    """What the newest backup knows of the sealed files."""
    dated = _dated(folder)
    return {file.path: file for file in _list(_manifest(dated[-1]), "sealed")} if dated else {}


def _thin_out(folder: Path, keep: int) -> int:
    old = _dated(folder)[:-keep] if keep else []
    for dated in old:
        gone = dated.with_name(dated.name + UNFINISHED)  # a crash half way leaves no folder that looks whole
        dated.rename(gone)
        shutil.rmtree(gone)
    return len(old)


def _manifest(dated: Path) -> dict[str, Any]:
    try:
        content = json.loads((dated / MANIFEST).read_bytes())
        if content["format"] != FORMAT:
            raise Misconfigured(
                f"{dated} is a backup of another format ({content['format']})", hint="use the version of the program that made it"
            )
        return dict(content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadEvidence(f"{dated / MANIFEST} cannot be read: {error}", hint="name an older dated folder") from error


def _list(content: Mapping[str, Any], name: str) -> list[Held]:
    """Files as the manifest names them, which leads to no place outside the backup and the home."""
    try:
        held = [Held(str(one["path"]), int(one["size"]), str(one["sha256"])) for one in content[name]]
    except (KeyError, ValueError, TypeError) as error:
        raise BadEvidence(f"the manifest of the backup is damaged: {error!r}") from error
    tops = VAULTS if name == "sealed" else ("home", "outside", LEDGER)
    for file in held:
        parts = file.path.split("/")
        if parts[0] not in tops or any(part in ("", ".", "..") for part in parts) or (len(parts) == 1 and file.path != LEDGER):
            raise BadEvidence(f"the manifest of the backup names {file.path!r}, which belongs into none")
    return held


def _told(file: Held) -> dict[str, object]:
    return {"path": file.path, "size": file.size, "sha256": file.sha256}


# -- files ------------------------------------------------------------------------------------------------------------


def _held(base: Path, path: str) -> Held:
    found, size = hasher(), 0
    with (base / path).open("rb") as file:
        while piece := file.read(PIECE):
            found.update(piece)
            size += len(piece)
    return Held(path, size, found.hexdigest())


def _there(target: Path, file: Held) -> bool:
    """Whether a file was brought back before. Raises: Misconfigured when something else lies there."""
    if not target.exists() and not target.is_symlink():
        return False
    try:
        found = _held(target.parent, target.name)
    except OSError as error:
        raise Misconfigured(f"{target} cannot be read: {error.strerror}") from error
    if (found.size, found.sha256) != (file.size, file.sha256):
        raise Misconfigured(
            f"{target} is there already, with other content",
            hint="restore into an empty home (FEDIWARDEN_HOME); the folder `models` may stay",
        )
    return True


def _copy(source: Path, target: Path, file: Held | None) -> None:
    """Copy a file so that it is there whole, or not at all."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged = target.with_name(target.name + UNFINISHED)
    with source.open("rb") as read, os.fdopen(_private(staged, os.O_TRUNC), "wb") as write:
        shutil.copyfileobj(read, write, PIECE)
        write.flush()
        os.fsync(write.fileno())
    if file is not None and _held(staged.parent, staged.name).sha256 != file.sha256:
        staged.unlink()
        raise CannotWrite(f"{target} does not read back as it was in the backup", hint="check the disk")
    staged.rename(target)
    _sync(target.parent)


def _write(path: Path, data: bytes) -> None:
    with os.fdopen(_private(path, os.O_EXCL), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _private(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Busy(f"another backup is writing into {folder}", hint="wait until it has ended") from error
        yield
    finally:
        os.close(lock)


@contextmanager
def _plainly(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = error.filename or folder
        raise CannotWrite(
            f"cannot write {where}: {error.strerror or error}", hint="check the disk and who owns the folder"
        ) from error
