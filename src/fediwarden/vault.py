"""Sealed evidence: bytes encrypted with age to public keys, written once; no private key is on this path except in `Vault.open`.

A vault is a folder that needs no program but `age` to be read: `<aa>/<sha256>.age` holds the bytes with that SHA-256, and
`<aa>/<sha256>.<16 digits>.json` says for each object that held them what was sealed, when and why. Plaintext never touches
the disk. When anything is hidden or destroyed is not decided here.
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256 as digest
from pathlib import Path
from stat import S_ISREG
from typing import Any

from fediwarden.errors import BadEvidence, CannotWrite, Misconfigured
from fediwarden.model import Sha256, StoreName

FEWEST_KEYS = 2  # so that the loss of one private key loses no evidence
SECRET = "AGE-SECRET-KEY-"  # noqa: S105 - how a line with a private key begins
LARGEST_KEY_FILE = 64 * 1024
UNFINISHED = ".unfinished"
LOCK = ".lock"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the vault says, in the clear, about one sealed object."""

    sha256: Sha256
    size: int
    ciphertext_sha256: Sha256
    store: StoreName
    key: str
    at: datetime
    recipients: tuple[str, ...]
    because: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sealed:
    """Where the sealed bytes of an object and its manifest lie."""

    path: Path
    manifest_path: Path
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Examined:
    """One thing in a vault's folder, and what is wrong with it."""

    path: Path
    sha256: Sha256 | None  # of the bytes that are, or should be, sealed there
    problem: str = ""  # "" for sealed bytes that are as they were written
    manifest: Manifest | None = None
    left_over: bool = False  # what a crash left; it is lawfully taken away, or completed


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key in a file, and the public key that belongs to it."""

    path: Path
    public: str


class Vault:
    """One folder of sealed evidence. Nothing is opened or made before the first call; any thread may call anything."""

    def __init__(self, folder: Path, recipients: Sequence[str]) -> None:
        """Raises: Misconfigured for fewer than two different public keys, or a text that is none."""
        self._folder = folder
        self._recipients = tuple(dict.fromkeys(recipients))
        if len(self._recipients) < FEWEST_KEYS:
            raise Misconfigured(
                f"the vault needs at least {FEWEST_KEYS} different public keys, and has {len(self._recipients)}",
                hint="run `fediwarden vault init`, or add a second key",
            )
        self._keys = [_recipient(text) for text in self._recipients]

    def seal(
        self, data: bytes, sha256: Sha256, *, store: StoreName, key: str, at: datetime, because: Mapping[str, str]
    ) -> Sealed:
        """Put the bytes of one object beyond change, and return when they were read back from the disk.

        The same bytes are encrypted once however many objects hold them; sealing an object twice is the same as once, and
        nothing is ever overwritten. Raises: CannotWrite (full or read-only disk; nothing half is left), BadEvidence (these
        are not the bytes of `sha256`, or what was sealed of them before is damaged).
        """
        if digest(data).hexdigest() != sha256:
            raise BadEvidence(f"what should be sealed does not have the hash {sha256}")
        if at.tzinfo is None:
            raise ValueError("a time without a zone cannot be recorded")
        path = self._path(sha256)
        manifest_path = path.with_name(f"{sha256}.{_name_of(store, key)}.json")
        with self._alone(path.parent):
            earlier = next(self._manifests(sha256), None)
            if earlier is None:
                if path.exists():
                    # whole, it seems, but without its manifest nobody can tell without a key, so it is kept aside
                    _rename(path, _free_name(path))
                ciphertext = self._encrypted(data)
                manifest = Manifest(
                    sha256, len(data), Sha256(digest(ciphertext).hexdigest()), store, key, at, self._recipients, dict(because)
                )
                _write({path: ciphertext, manifest_path: _manifest_text(manifest)})
                return Sealed(path, manifest_path, manifest)
            if _digest_of(path) != earlier.ciphertext_sha256:
                raise BadEvidence(
                    f"the sealed copy {path} is missing or damaged",
                    hint=f"move the files that begin with {sha256} out of the vault, keep them, and apply again",
                )
            if not manifest_path.exists():
                manifest = replace(earlier, store=store, key=key, at=at, because=dict(because))
                _write({manifest_path: _manifest_text(manifest)})
        return Sealed(path, manifest_path, _read_manifest(manifest_path))

    def check(self, sha256: Sha256) -> bool:
        """Whether the sealed bytes are there as they were written. Needs no key."""
        manifests = list(self._manifests(sha256))
        if not manifests:
            return False
        found = _digest_of(self._path(sha256))
        return all(manifest.ciphertext_sha256 == found for manifest in manifests)

    def sealed(self) -> Iterator[Manifest]:
        """Every manifest in the order of SHA-256, one folder at a time. Raises: BadEvidence for one that cannot be read."""
        if not self._folder.is_dir():
            return
        with _plainly(self._folder):
            folders = sorted(item.path for item in os.scandir(self._folder) if item.is_dir(follow_symlinks=False))
        for folder in folders:
            for path in sorted(Path(folder).glob("*.json")):
                yield _read_manifest(path)

    def open(self, sha256: Sha256, identities: Sequence[Path]) -> bytes:
        """Decrypt in memory with private keys from files; the bytes have the hash `sha256` when this returns.

        Raises: Misconfigured (a key file cannot be read, or no key fits), BadEvidence (missing, or not what was sealed).
        """
        import pyrage

        keys = [key for path in identities for key in _identities(path)]
        if not keys:
            raise Misconfigured("no private key was given", hint="name the key file that was put away when the vault was made")
        path = self._path(sha256)
        try:
            ciphertext = path.read_bytes()
        except OSError as error:
            raise BadEvidence(f"nothing is sealed under {sha256}: {error.strerror}") from error
        written = {manifest.ciphertext_sha256 for manifest in self._manifests(sha256)}
        if written and written != {digest(ciphertext).hexdigest()}:
            raise BadEvidence(f"the sealed copy {path} is not what was written")
        try:
            data: bytes = pyrage.decrypt(ciphertext, keys)
        except pyrage.DecryptError as error:
            if written:
                raise Misconfigured(
                    f"none of the given keys opens {sha256}", hint="its manifest names the public keys that do"
                ) from error
            raise BadEvidence(f"the sealed copy {path} cannot be opened: {error}") from error
        if digest(data).hexdigest() != sha256:
            raise BadEvidence(f"the sealed copy {path} holds other bytes than its name says")
        return data

    def tidy(self) -> None:
        """Complete or take away what crashes left unfinished. Raises: CannotWrite."""
        if self._folder.is_dir():
            for folder in sorted(item for item in self._folder.iterdir() if item.is_dir() and not item.is_symlink()):
                with self._alone(folder):
                    pass

    def set_aside(self, sha256: Sha256) -> Path | None:
        """Rename what is sealed under a hash and is damaged, manifests too, so that it can be sealed anew; nothing is lost.

        Returns where the sealed file lies now, None where there was none. Raises: CannotWrite, BadEvidence when it is whole.
        """
        path = self._path(sha256)
        with self._alone(path.parent):
            if self.check(sha256):
                raise BadEvidence(f"{path} is whole")
            for manifest in sorted(path.parent.glob(f"{sha256}.*.json")):
                _rename(manifest, _free_name(manifest))
            if not path.exists():
                return None
            aside = _free_name(path)
            _rename(path, aside)
        return aside

    def _path(self, sha256: Sha256) -> Path:
        if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
            raise ValueError("not a SHA-256 in lower-case hexadecimal digits")
        return self._folder / sha256[:2] / f"{sha256}.age"

    def _manifests(self, sha256: Sha256) -> Iterator[Manifest]:
        for path in sorted(self._path(sha256).parent.glob(f"{sha256}.*.json")):
            yield _read_manifest(path)

    def _encrypted(self, data: bytes) -> bytes:
        import pyrage

        return bytes(pyrage.encrypt(data, self._keys))

    @contextmanager
    def _alone(self, folder: Path) -> Iterator[None]:
        """Hold the vault's lock, with `folder` made and what a crash left unfinished in it taken away."""
        with _plainly(self._folder):
            for made in (self._folder, folder):
                if not made.is_dir():
                    made.mkdir(mode=0o700, parents=True, exist_ok=True)
                    _sync_folder(made.parent)
            lock = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._tidy(folder)
                yield
            finally:
                os.close(lock)

    def _tidy(self, folder: Path) -> None:
        """Finish what a crash left between the sealed bytes and their manifest, and take away what it left before that."""
        for left in sorted(folder.glob(f"*.json{UNFINISHED}")):
            named = left.with_name(left.name.removesuffix(UNFINISHED))
            try:
                manifest = _read_manifest(left)
            except BadEvidence:  # cut off while it was written
                continue
            if not named.exists() and _digest_of(self._path(manifest.sha256)) == manifest.ciphertext_sha256:
                _publish(left, named)
        for left in folder.glob(f"*{UNFINISHED}"):
            left.unlink()


@dataclass(frozen=True, slots=True)
class Vaults:
    """Where bytes are sealed: evidence, and drill pictures apart from it."""

    evidence: Vault
    drills: Vault

    def of(self, *, drill: bool) -> Vault:
        """Where such an object is sealed."""
        return self.drills if drill else self.evidence


def examine(folder: Path) -> Iterator[Examined]:
    """Every sealed file of a vault with whether it is as it was written, read whole; and whatever else lies there. Needs no key."""
    if not folder.is_dir():
        return
    try:
        inner = sorted(Path(item.path) for item in os.scandir(folder) if item.is_dir(follow_symlinks=False))
        for place in inner:
            yield from _examine_folder(place)
    except OSError as error:
        raise BadEvidence(f"the vault {folder} cannot be read: {error.strerror}") from error


def _examine_folder(place: Path) -> Iterator[Examined]:
    manifests: dict[Sha256, list[Manifest]] = {}
    sealed: set[Sha256] = set()
    for path in sorted(place.iterdir()):
        name = path.name
        if name.endswith(UNFINISHED):
            yield Examined(path, None, "left by a crash while it was written", left_over=True)
        elif name.endswith(".json"):
            try:
                manifest = _read_manifest(path)
            except BadEvidence as error:
                yield Examined(path, None, str(error))
                continue
            if not name.startswith(f"{manifest.sha256}."):
                yield Examined(path, None, f"the manifest {path} is about other bytes than its name says", manifest)
                continue
            manifests.setdefault(manifest.sha256, []).append(manifest)
        elif name.endswith(".age"):
            sealed.add(Sha256(name.removesuffix(".age")))
    for sha256 in sorted(sealed | set(manifests)):
        path = place / f"{sha256}.age"
        told = manifests.get(sha256, [])
        problem = ""
        if not told:
            problem = f"{path} has no manifest"
        elif sha256 not in sealed:
            problem = f"the sealed copy {path} is missing"
        else:
            try:
                found = _digest_of(path)
            except BadEvidence as error:
                problem = str(error)
            else:
                if any(manifest.ciphertext_sha256 != found for manifest in told):
                    problem = f"the sealed copy {path} is not what was written"
        yield Examined(path, sha256, problem, told[0] if told else None)


def make_identities(folder: Path, count: int = FEWEST_KEYS) -> list[Identity]:
    """Make private keys in files of `folder` that only their owner may read. They belong on other machines than this one.

    Raises: Misconfigured when one of the files is there already (nothing is made then), CannotWrite.
    """
    from pyrage import x25519

    paths = [folder / f"vault-key-{number}.txt" for number in range(1, count + 1)]
    for path in paths:
        if path.exists() or path.is_symlink():
            raise Misconfigured(f"{path} is there already", hint="move the old keys away first; what they sealed needs them")
    secrets = {path: x25519.Identity.generate() for path in paths}
    made = [Identity(path, str(secret.to_public())) for path, secret in secrets.items()]
    with _plainly(folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    about = "# a private key of a Fediwarden vault; it belongs on no machine that scans\n"
    _write({item.path: f"{about}# public key: {item.public}\n{secrets[item.path]}\n".encode() for item in made})
    return made


def write_recipients(file: Path, publics: Sequence[str]) -> None:
    """Put public keys into a file, one a line. Raises: Misconfigured when it exists with others, or for a bad key, CannotWrite."""
    for public in publics:
        _recipient(public)
    if file.exists():
        if read_recipients(file) == list(publics):
            return
        raise Misconfigured(f"{file} is there already, with other keys", hint="move it away, or edit it by hand")
    with _plainly(file.parent):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    lines = ["# public keys of the vault, one a line; everything is sealed to all of them", *publics]
    _write({file: "".join(line + "\n" for line in lines).encode()})


def read_recipients(file: Path) -> list[str]:
    """The public keys in a file. Raises: Misconfigured, also for a private key that got there by mistake."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"cannot read the vault's public keys from {file}", hint="run `fediwarden vault init`") from error
    publics = [line for line in lines if line and not line.startswith("#")]
    for public in publics:
        _recipient(public)
    return publics


def identities_here(folder: Path) -> list[Path]:
    """Files under `folder` that hold a private key, which should lie elsewhere. What cannot be read is passed over."""
    found: list[Path] = []
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(place) / name
            try:
                facts = path.lstat()
                if S_ISREG(facts.st_mode) and facts.st_size <= LARGEST_KEY_FILE and SECRET.encode() in path.read_bytes():
                    found.append(path)
            except OSError:
                continue
    return sorted(found)


def _recipient(text: str) -> Any:
    import pyrage
    from pyrage import x25519

    if text.upper().startswith(SECRET):
        raise Misconfigured("a private key was given where a public one belongs", hint="public keys begin with age1")
    try:
        return x25519.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        raise Misconfigured(f"{text[:80]!r} is not a public key of age", hint="public keys begin with age1") from error


def _identities(path: Path) -> Iterator[Any]:
    import pyrage
    from pyrage import x25519

    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"cannot read the private key {path}") from error
    secrets = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    if not secrets:
        raise Misconfigured(f"{path} holds no private key")
    for secret in secrets:
        try:
            yield x25519.Identity.from_str(secret)
        except pyrage.IdentityError as error:
            raise Misconfigured(f"{path} holds something that is not a private key of age") from error


def _name_of(store: StoreName, key: str) -> str:
    """Names the manifest of an object, whose own name may hold anything."""
    return digest(b"\0".join(text.encode("utf-8", "surrogatepass") for text in (store, key))).hexdigest()[:16]


def _manifest_text(manifest: Manifest) -> bytes:
    content = {
        "sha256": manifest.sha256,
        "size": manifest.size,
        "ciphertext_sha256": manifest.ciphertext_sha256,
        "store": manifest.store,
        "key": manifest.key,
        "sealed_at": manifest.at.isoformat(timespec="microseconds"),
        "recipients": list(manifest.recipients),
        "because": dict(manifest.because),
    }
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=True).encode("ascii") + b"\n"


def _read_manifest(path: Path) -> Manifest:
    try:
        read = json.loads(path.read_bytes())
        return Manifest(
            sha256=Sha256(read["sha256"]),
            size=int(read["size"]),
            ciphertext_sha256=Sha256(read["ciphertext_sha256"]),
            store=StoreName(read["store"]),
            key=str(read["key"]),
            at=datetime.fromisoformat(read["sealed_at"]),
            recipients=tuple(read["recipients"]),
            because=dict(read["because"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadEvidence(f"the manifest {path} cannot be read: {error}") from error


def _digest_of(path: Path) -> str:
    """SHA-256 of a file; "" where there is none."""
    found = digest()
    try:
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                found.update(part)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise BadEvidence(f"the sealed copy {path} cannot be read: {error.strerror}") from error
    return found.hexdigest()


def _write(files: Mapping[Path, bytes]) -> None:
    """Write new files of one folder so that all are there, whole, as read back from the disk, or none is.

    All are written under other names first; a crash between their namings leaves the rest to be named later (`_tidy`).
    """
    folder = next(iter(files)).parent
    made: list[Path] = []
    with _plainly(folder):
        try:
            for path, content in files.items():
                _stage(_unfinished(path), content)
            _sync_folder(folder)
            for path in files:
                _publish(_unfinished(path), path)
                made.append(path)
            _sync_folder(folder)
        except (OSError, CannotWrite):
            for path in made:
                path.unlink()
            for path in files:
                _unfinished(path).unlink(missing_ok=True)
            raise


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + UNFINISHED)


def _stage(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "r+b", buffering=0) as file:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)  # read from the disk, not from memory
        file.seek(0)
        if file.readall() != content:
            raise CannotWrite(f"{path} does not read back as written", hint="check the disk")


def _publish(unfinished: Path, path: Path) -> None:
    """Give a file its name. A link, unlike a rename, never replaces what is there; some file systems have none."""
    try:
        path.hardlink_to(unfinished)
    except FileExistsError as error:
        raise CannotWrite(f"{path} is there already", hint="another program writes in this folder") from error
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK) or path.exists():
            raise
        unfinished.rename(path)
    else:
        unfinished.unlink()


def _rename(path: Path, to: Path) -> None:
    path.rename(to)
    _sync_folder(path.parent)


def _free_name(path: Path) -> Path:
    names: Iterable[Path] = (path.with_name(f"{path.name}.unclaimed-{number}") for number in range(1, 1 << 16))
    return next(name for name in names if not name.exists())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _plainly(folder: Path) -> Iterator[None]:
    """Raise CannotWrite, in one clear line, for what an operating system may answer."""
    try:
        yield
    except OSError as error:
        hint = (
            "free some space, then run this again"
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else "check who owns the folder, and how it is mounted"
        )
        raise CannotWrite(f"cannot write in {folder}: {error.strerror or error}", hint=hint) from error
