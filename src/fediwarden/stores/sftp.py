"""A folder on an SSH host as a store: one verified connection, many requests in flight; the only place that imports asyncssh.

Nothing is ever asked for, `~/.ssh/config` is not read, and a host whose key is unknown or has changed is not talked to. SFTP
tells times in whole seconds, so the stamp is size and modification time; that a file is left alone for `settle_seconds`
before it is looked at keeps two versions of one second apart. The protocol has no way to walk folders without following
links; the server is asked for the real path of every file first, and a file that lies elsewhere names nothing.
"""

import asyncio
import contextlib
import hashlib
import json
import posixpath
import stat as modes
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, MutableSequence, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, TypeVar

from fediwarden.errors import (
    BadEvidence,
    CannotWrite,
    Changed,
    FediwardenError,
    Gone,
    Misconfigured,
    Occupied,
    Refused,
    TooLarge,
    Unreached,
    Unsettled,
)
from fediwarden.model import Blob, ObjectRef, Place, Sha256, StoreName
from fediwarden.stores.interface import PAGE
from fediwarden.stores.naming import parts_of, shown
from fediwarden.stores.retry import Patience

if TYPE_CHECKING:
    import asyncssh

T = TypeVar("T")
SLOWEST = 16 * 1024  # bytes a second
PIECE = 4 << 20
AT_ONCE = 16  # folders that are read at the same time
FIRST = 10 * PAGE  # entries of a folder that are read together with other folders; a larger one is then streamed alone
DEFAULT_KEYS = ("id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk")
REMOVING, REMOVED, WRITING = b".removing", b".removed", b".writing"


def _bytes(key: str) -> bytes:
    return key.encode("utf-8", "surrogateescape")


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """One line of a remote folder."""

    name: bytes
    mode: int
    size: int
    mtime: int


class Wire:
    """One SSH connection with an SFTP session, served by an event loop in a thread of its own; connects when first used.

    `key`: a private key file; without one the agent at the socket `agent` and the usual files below `home` are tried.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        user: str,
        key: Path | None,
        home: Path,
        known_hosts: Path | None,
        agent: str,
        patience: Patience,
        seconds: float = 30.0,
    ) -> None:
        self._host, self._port, self._user, self._key = host, port, user, key
        self._home, self._known_hosts, self._agent = home, known_hosts, agent
        self._patience = patience
        self._seconds = seconds
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._connecting: asyncio.Lock | None = None
        self._open: tuple[asyncssh.SSHClientConnection, asyncssh.SFTPClient] | None = None
        self._requests = 0

    @property
    def requests(self) -> int:
        """Requests as the store counts them: file operations and folders, not packets."""
        return self._requests

    def call(self, make: "Callable[[asyncssh.SFTPClient], Awaitable[T]]", *, size: int = 0) -> T:
        """Run one exchange to its end, connecting or reconnecting first where needed; from any thread.

        `size`: the bytes that may have to come, for the time limit. Raises: Unreached, Refused, Misconfigured, and SFTPError
        as the server sent it, for the caller to read.
        """
        return self._patience.run(lambda: self._run(self._once(make, size)))

    def close(self) -> None:
        """End the connection and the thread. A later call opens them again."""
        with self._lock:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._end(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()

    def _run(self, work: "Awaitable[T]") -> T:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._connecting = asyncio.Lock()
                self._thread = Thread(target=self._loop.run_forever, name=f"sftp {self._host}", daemon=True)
                self._thread.start()
            loop = self._loop
        future = asyncio.run_coroutine_threadsafe(_awaited(work), loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # Ctrl-C while waiting: nobody is interested any more
            raise

    async def _once(self, make: "Callable[[asyncssh.SFTPClient], Awaitable[T]]", size: int) -> T:
        import asyncssh

        connection, session = await self._session()
        self._requests += 1
        try:
            return await asyncio.wait_for(_awaited(make(session)), self._seconds + size / SLOWEST)
        except (
            asyncssh.SFTPConnectionLost,
            asyncssh.SFTPNoConnection,
            asyncssh.DisconnectError,
            asyncssh.ChannelOpenError,
        ) as error:
            self._drop(connection)
            raise Unreached(f"the connection to {self._host} was lost") from error
        except TimeoutError as error:
            self._drop(connection)
            raise Unreached(f"{self._host} gave no answer in time") from error
        except ConnectionError as error:
            self._drop(connection)
            raise Unreached(f"the connection to {self._host} was lost: {error.strerror}") from error

    async def _session(self) -> "tuple[asyncssh.SSHClientConnection, asyncssh.SFTPClient]":
        if self._connecting is None:
            raise Unreached("the connection was closed")
        async with self._connecting:
            if self._open is None:
                self._open = await self._connect()
            return self._open

    async def _connect(self) -> "tuple[asyncssh.SSHClientConnection, asyncssh.SFTPClient]":
        import asyncssh

        keys, agent = self._keys()
        try:
            connection = await asyncio.wait_for(
                asyncssh.connect(
                    self._host,
                    self._port,
                    username=self._user or (),
                    known_hosts=self._known(),
                    client_keys=keys,
                    ignore_encrypted=True,
                    agent_path=agent,
                    config=None,
                    public_key_auth=True,
                    password_auth=False,
                    kbdint_auth=False,
                    host_based_auth=False,
                    gss_kex=False,
                    gss_auth=False,
                    connect_timeout=self._seconds,
                    login_timeout=self._seconds,
                    keepalive_interval=15,
                    keepalive_count_max=3,
                ),
                2 * self._seconds,
            )
        except asyncssh.HostKeyNotVerifiable as error:
            raise self._stranger() from error
        except asyncssh.KeyExchangeFailed as error:
            raise Refused(
                f"no kind of host key or cipher in common with {self._host}: {error.reason}",
                hint="known_hosts may hold another kind of key than the server has now; find out why before you change it",
            ) from error
        except asyncssh.PermissionDenied as error:
            raise Refused(
                f"{self._host} did not let {self._user or 'this user'} in",
                hint="check the user, and that its authorized_keys has the key",
            ) from error
        except (asyncssh.Error, OSError, TimeoutError) as error:
            raise Unreached(f"{self._host}:{self._port} cannot be reached: {_words(error)}") from error
        try:
            session = await asyncio.wait_for(connection.start_sftp_client(), self._seconds)
        except (asyncssh.Error, OSError, TimeoutError) as error:
            connection.abort()
            raise Unreached(
                f"{self._host} gave no SFTP session: {_words(error)}", hint="does its sshd have the sftp subsystem?"
            ) from error
        return connection, session

    def _known(self) -> Sequence[str]:
        """The files with host keys. Never empty: an empty list would be no check at all."""
        files = [self._known_hosts] if self._known_hosts else [self._home / ".ssh/known_hosts", Path("/etc/ssh/ssh_known_hosts")]
        there = [str(path) for path in files if path.is_file()]
        if not there:
            raise Refused(
                f"the host key of {self._host} is not known: there is no {shown(str(files[0]))}",
                hint=f"get it with `ssh-keyscan -p {self._port} {self._host}`, compare the fingerprint, and put it there",
            )
        return there

    def _stranger(self) -> FediwardenError:
        import asyncssh

        try:
            known = any(asyncssh.read_known_hosts(path).match(self._host, "", self._port)[0] for path in self._known())
        except (OSError, ValueError):
            known = False
        if known:
            return Refused(
                f"the host key of {self._host} has CHANGED",
                hint="if you did not change it yourself, someone may sit in between; ask the operator of the host",
            )
        return Refused(
            f"the host key of {self._host} is not known",
            hint=f"get it with `ssh-keyscan -p {self._port} {self._host}`, compare the fingerprint, and add it to known_hosts",
        )

    def _keys(self) -> "tuple[Sequence[asyncssh.SSHKey], str | None]":
        """The private keys to offer and the agent's socket. Raises: Misconfigured where there is nothing to log in with."""
        import asyncssh

        agent = self._agent if self._agent and Path(self._agent).is_socket() else None
        if self._key is not None:
            try:
                return [asyncssh.read_private_key(self._key)], None
            except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
                if _is_locked(error) and agent is not None:
                    return (), agent
                if _is_locked(error):
                    raise Misconfigured(
                        f"the key {shown(str(self._key))} has a passphrase, and nobody is asked for one",
                        hint="add it to ssh-agent, or make a key without a passphrase for this store",
                    ) from error
                raise Misconfigured(f"the key {shown(str(self._key))} cannot be read: {_words(error)}") from error
        keys, locked = [], 0
        for name in DEFAULT_KEYS:
            try:
                keys.append(asyncssh.read_private_key(self._home / ".ssh" / name))
            except (OSError, asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
                locked += _is_locked(error)
        if not keys and agent is None:
            raise Misconfigured(
                "every SSH key has a passphrase, and there is no agent" if locked else "there is no SSH key to log in with",
                hint="start ssh-agent, or set `credentials` of the store to a file that names a `key`",
            )
        return keys, agent

    def _drop(self, connection: "asyncssh.SSHClientConnection") -> None:
        """Forget a connection that failed, unless another exchange has already replaced it."""
        if self._open is not None and self._open[0] is connection:
            self._open = None
        connection.abort()

    async def _end(self) -> None:
        if self._open is not None:
            connection, session = self._open
            self._open = None
            session.exit()
            connection.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(connection.wait_closed(), 5)
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


async def _awaited(work: "Awaitable[T]") -> T:
    return await work


def _is_locked(error: Exception) -> bool:
    """Whether a private key needs a passphrase; asyncssh tells only in words that none was given."""
    import asyncssh

    return isinstance(error, asyncssh.KeyEncryptionError) or "passphrase" in str(error).lower()


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError) and not str(error):
        return "it took too long"
    reason = getattr(error, "reason", "") or getattr(error, "strerror", "") or str(error)
    return str(reason) or type(error).__name__


class SftpReader:
    """A folder on an SSH host, read with no right to change it.

    `root`: absolute, or relative to the home of the user. `skipped_links`: symbolic links met by the last listing.
    """

    def __init__(
        self,
        name: StoreName,
        wire: Wire,
        root: str,
        quarantine: str = "",
        *,
        settle_seconds: float = 2.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            import asyncssh  # noqa: F401 - heavy; only to say at once that it is missing
        except ImportError as error:
            raise Misconfigured("stores over SSH need asyncssh", hint="pip install 'fediwarden[sftp]'") from error
        self._name = name
        self._wire = wire
        self._root = posixpath.normpath(_bytes(root))
        self._quarantine = posixpath.normpath(_bytes(quarantine)) if quarantine else self._root + b".quarantine"
        if self._root == self._quarantine or self._root.startswith(self._quarantine.rstrip(b"/") + b"/"):
            raise Misconfigured("the quarantine place contains the store itself", hint="choose a folder beside the store")
        below = self._root.rstrip(b"/") + b"/"
        self._inside = self._quarantine.removeprefix(below) if self._quarantine.startswith(below) else None
        self._settle = settle_seconds
        self._clock = clock
        self._real_root: bytes | None = None
        self.skipped_links = 0

    @property
    def name(self) -> StoreName:
        """As `Reader.name`."""
        return self._name

    @property
    def requests(self) -> int:
        """As `Reader.requests`."""
        return self._wire.requests

    def close(self) -> None:
        """As `Reader.close`."""
        self._wire.close()

    def list(self) -> Iterator[Sequence[ObjectRef]]:
        """As `Reader.list`. Several folders are read at a time; those that could not be are told at the end, as Unreached."""
        self.skipped_links = 0
        with self._reaching(""):
            self._wire.call(self._rooted)
        pending: MutableSequence[bytes] = [b""]
        page: MutableSequence[ObjectRef] = []
        missed, unread = 0, ""
        while pending:
            batch = [pending.pop() for _ in range(min(AT_ONCE, len(pending)))]
            for at, entries, whole, problem in self._wire.call(self._reading(batch)):
                stream = entries if whole else self._streamed(at)
                try:
                    for entry in stream:
                        path = at + entry.name
                        if modes.S_ISREG(entry.mode):
                            page.append(self._ref(path, entry))
                            if len(page) == PAGE:
                                yield page
                                page = []
                        elif modes.S_ISDIR(entry.mode):
                            if path != self._inside:
                                pending.append(path + b"/")
                        elif modes.S_ISLNK(entry.mode):
                            self.skipped_links += 1
                except Refused as error:
                    problem = str(error)
                if problem:
                    missed += 1
                    unread = unread or problem
        if page:
            yield page
        if missed:
            raise Unreached(
                f"{missed} folder{'s' if missed > 1 else ''} of {shown(_text(self._root))} could not be read: {unread}",
                hint="let the account that scans read every folder",
            )

    def _reading(
        self, batch: Sequence[bytes]
    ) -> "Callable[[asyncssh.SFTPClient], Awaitable[Sequence[tuple[bytes, Sequence[FolderEntry], bool, str]]]]":
        """Read the beginnings of several folders at once: path, entries, whether that is all, what went wrong."""

        async def one(session: "asyncssh.SFTPClient", at: bytes) -> tuple[bytes, Sequence[FolderEntry], bool, str]:
            import asyncssh

            found: MutableSequence[FolderEntry] = []
            try:
                async for entry in _scan(session, posixpath.join(self._root, at)):
                    found.append(entry)
                    if len(found) > FIRST:
                        return at, (), False, ""
            except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPNotADirectory):
                if at:
                    return at, found, True, ""  # deleted meanwhile
                raise
            except (asyncssh.SFTPPermissionDenied, asyncssh.SFTPFailure) as error:
                return at, found, True, f"{shown(_text(at))}: {error.reason}"
            return at, found, True, ""

        async def several(session: "asyncssh.SFTPClient") -> Sequence[tuple[bytes, Sequence[FolderEntry], bool, str]]:
            return await asyncio.gather(*(one(session, at) for at in batch))

        return several

    def _streamed(self, at: bytes) -> Iterator[FolderEntry]:
        """A very large folder, page by page. After a lost connection it is read again and what was seen is left out."""
        seen: set[int] = set()
        while True:
            scan = _LongListing(posixpath.join(self._root, at))
            try:
                while entries := self._wire.call(scan.more):
                    for entry in entries:
                        mark = hash(entry.name)
                        if mark not in seen:
                            seen.add(mark)
                            yield entry
            except _Broken:
                continue
            return

    def stat(self, key: str) -> ObjectRef:
        """As `Reader.stat`."""
        path = self._path(key)

        async def look(session: "asyncssh.SFTPClient") -> FolderEntry | None:
            return await self._looked(session, path)

        with self._reaching(key):
            entry = self._wire.call(look)
        if entry is None:
            raise Gone(f"{shown(key)} is not a file of this store")
        return self._ref(_bytes(key), entry)

    def fetch(self, ref: ObjectRef, limit: int) -> Blob:
        """As `Reader.fetch`."""
        key = ref.key
        path = self._path(key)

        async def get(session: "asyncssh.SFTPClient") -> tuple[FolderEntry, bytes]:
            before = await self._looked(session, path)
            if before is None:
                raise Gone(f"{shown(key)} is not a file of this store")
            if abs(self._clock() - before.mtime) < self._settle:
                raise Unsettled(f"{shown(key)} was modified just now")
            if before.size > limit:
                raise TooLarge(f"{shown(key)} has {before.size} bytes, more than the limit of {limit}")
            async with session.open(path, "rb", encoding=None) as file:
                data: bytes = await file.read(before.size + 1)
                after = _entry(b"", await file.stat())
            if len(data) != before.size or (after.size, after.mtime) != (before.size, before.mtime):
                raise Unsettled(f"{shown(key)} changed while it was read")
            return before, data

        with self._reaching(key):
            entry, data = self._wire.call(get, size=min(ref.size, limit))
        return Blob.of(self._ref(_bytes(key), entry), data)

    async def _rooted(self, session: "asyncssh.SFTPClient") -> bytes:
        """The real path of the root. Raises: Refused when it is no folder."""
        import asyncssh

        try:
            real = await session.realpath(self._root)
            attrs = await session.stat(self._root)
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPPermissionDenied) as error:
            raise Refused(
                f"the folder {shown(_text(self._root))} cannot be opened: {error.reason}", hint="check the path"
            ) from error
        if not modes.S_ISDIR(attrs.permissions or 0):
            raise Refused(f"{shown(_text(self._root))} is not a folder", hint="check the path")
        self._real_root = _as_bytes(real)
        return self._real_root

    async def _looked(self, session: "asyncssh.SFTPClient", path: bytes) -> FolderEntry | None:
        """What lies at a path below the root; None unless it is a file, reached without any link.

        Raises: Gone when there is nothing, Refused when the root is not there.
        """
        import asyncssh

        root = self._real_root or await self._rooted(session)
        try:
            attrs, real = await asyncio.gather(session.lstat(path), session.realpath(path))
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPNotADirectory) as error:
            await self._rooted(session)
            raise Gone("it is not there") from error
        entry = _entry(b"", attrs)
        expected = root.rstrip(b"/") + b"/" + path.removeprefix(self._root.rstrip(b"/") + b"/")
        return entry if modes.S_ISREG(entry.mode) and _as_bytes(real) == expected else None

    def _path(self, key: str) -> bytes:
        """The remote path of a key. Raises: Gone when it cannot be one."""
        parts = parts_of(key)
        try:
            raw = _bytes(key)
        except UnicodeEncodeError as error:
            raise Gone(f"{shown(key)} names nothing in this store") from error
        if parts is None or (self._inside is not None and (raw + b"/").startswith(self._inside + b"/")):
            raise Gone(f"{shown(key)} names nothing in this store")
        return posixpath.join(self._root, raw)

    def _ref(self, key: bytes, entry: FolderEntry) -> ObjectRef:
        try:
            when = datetime.fromtimestamp(entry.mtime, UTC)
        except (ValueError, OverflowError, OSError):
            when = None
        return ObjectRef(self._name, _text(key), entry.size, f"{entry.size}:{entry.mtime}", when)

    @contextmanager
    def _reaching(self, key: str) -> Generator[None]:
        """Turn what the server says about `key` into this program's errors."""
        import asyncssh

        what = shown(key) if key else shown(_text(self._root))
        try:
            yield
        except Gone as error:
            raise Gone(f"{what} is not there") from error
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPNotADirectory, asyncssh.SFTPLinkLoop) as error:
            raise Gone(f"{what} is not there") from error
        except asyncssh.SFTPPermissionDenied as error:
            raise Unreached(f"{what} could not be read: {error.reason}", hint="let the account that scans read it") from error
        except (asyncssh.SFTPBadMessage, asyncssh.SFTPInvalidFilename) as error:
            raise Gone(f"{what} names nothing in this store") from error
        except asyncssh.SFTPError as error:
            if len(_bytes(key)) > 255:  # OpenSSH says only "failure" for a name that is too long
                raise Gone(f"{what} is not there") from error
            raise Unreached(f"{what} could not be read: {error.reason}") from error


class _Broken(Exception):
    """The connection under a listing is gone; the listing has to begin anew."""


class _LongListing:
    """A folder listing that is read a few thousand entries at a time, over one connection."""

    def __init__(self, path: bytes) -> None:
        self._path = path
        self._session: asyncssh.SFTPClient | None = None
        self._entries: AsyncIterator[FolderEntry] | None = None

    async def more(self, session: "asyncssh.SFTPClient") -> Sequence[FolderEntry]:
        """The next entries; none at the end. Raises: _Broken when it was begun over another connection."""
        if self._entries is None:
            self._session, self._entries = session, _scan(session, self._path)
        if self._session is not session:
            raise _Broken
        found: MutableSequence[FolderEntry] = []
        async for entry in self._entries:
            found.append(entry)
            if len(found) == 4 * PAGE:
                break
        return found


async def _scan(session: "asyncssh.SFTPClient", path: bytes) -> AsyncIterator[FolderEntry]:
    async for line in session.scandir(path):
        name = _as_bytes(line.filename)
        if name in (b".", b"..") or b"/" in name:
            continue
        yield _entry(name, line.attrs)


def _entry(name: bytes, attrs: "asyncssh.SFTPAttrs") -> FolderEntry:
    return FolderEntry(name, attrs.permissions or 0, attrs.size or 0, int(attrs.mtime or 0))


def _as_bytes(path: object) -> bytes:
    return path if isinstance(path, bytes) else _bytes(str(path))


class SftpKeeper(SftpReader):
    """A folder on an SSH host with the right to hide: renames on the server, so no byte travels but to be hashed.

    The quarantine folder lies on the same file system as the root, readable by its owner only.
    """

    def hide(self, ref: ObjectRef, sha256: Sha256, spot: str) -> Place:
        """As `Keeper.hide`: rename first, hash what was moved, and move it back if it was not what was meant.

        Bytes that someone puts under the key after the rename are theirs: left alone, and looked at next time.
        """
        key = ref.key
        source, at = self._path(key), self._at(spot)
        with self._acting(key):
            self._quarantined(posixpath.dirname(at))
            held = self._hash(at)
            if held is None:
                if self._file(source) is None:
                    raise Gone(f"{shown(key)} is neither in the store nor in its quarantine place")
                self._move(source, at, replace=True)
                held = self._hash(at)
            if held != sha256:
                self._return(key, at)
                raise Changed(f"{shown(key)} holds other bytes now; they were left where they are")
            number = 1
            while self._file(source) is not None and self._hash(source) == sha256:
                number += 1  # the same bytes under the key again: a crash half-way, or a second upload
                again = at + b".%d" % number
                if self._there(again) is None:
                    self._move(source, again, replace=True)
                    if self._hash(again) != sha256:
                        self._return(key, again)
                        break
            facts = self._facts(at)
        return Place(self._name, key, "moved", spot, facts | {"sha256": sha256})

    def remove(self, ref: ObjectRef, sha256: Sha256) -> Place:
        """As `Keeper.remove`. What is to be removed is renamed into the quarantine folder first, and only then deleted."""
        key = ref.key
        source = self._path(key)
        trace = _trace(key, sha256)
        at, done = posixpath.join(self._quarantine, REMOVING, trace), posixpath.join(self._quarantine, REMOVED, trace)
        with self._acting(key):
            self._quarantined(posixpath.dirname(at))
            self._quarantined(posixpath.dirname(done))
            held = self._hash(at)
            if held is None and self._file(source) is not None:
                self._move(source, at, replace=True)
                held = self._hash(at)
            if held is not None and held != sha256:
                self._return(key, at)
                if self._there(done) is None:
                    raise Changed(f"{shown(key)} holds other bytes now; they were left where they are")
            elif held is not None:
                facts = json.dumps(self._facts(at)).encode()
                self._call(lambda session: _write(session, done, facts, {}))
                self._unlink(at)
            try:
                facts_then = json.loads(self._call(lambda session: _read(session, done)))
            except Gone as error:
                raise Gone(f"{shown(key)} is not in the store") from error
        return Place(self._name, key, "removed", "", {str(name): str(value) for name, value in facts_then.items()})

    def restore(self, place: Place, sha256: Sha256) -> ObjectRef:
        """As `Keeper.restore`. Folders that have gone since are made again."""
        key = place.key
        if place.how != "moved" or not place.where:
            raise Gone(f"no hidden copy of {shown(key)} was kept", hint="restore it from the vault")
        source, at = self._path(key), self._at(place.where)
        with self._acting(key):
            self._quarantined(posixpath.dirname(at))
            held = self._hash(at)
            if held is None:
                if self._there(source) is None:
                    raise Gone(
                        f"{shown(key)} is neither in the quarantine place nor in the store", hint="restore it from the vault"
                    )
                return self._same(key, source, sha256)
            if held != sha256:
                raise BadEvidence(f"the hidden copy of {shown(key)} is not what was hidden", hint="restore it from the vault")
            self._call(lambda session: self._parents(session, source))
            if self._there(source) is None:
                self._move(at, source, replace=False)
                return self._same(key, source, sha256)
            back = self._same(key, source, sha256)  # the very bytes lie under the key
            self._unlink(at)
            return back

    def put_back(self, place: Place, data: bytes) -> ObjectRef:
        """As `Keeper.put_back`. The file is finished under a name of ours before it takes its place."""
        key = place.key
        source = self._path(key)
        sha256 = Sha256(hashlib.sha256(data).hexdigest())
        trace = _trace(key, sha256)
        at, done = posixpath.join(self._quarantine, WRITING, trace), posixpath.join(self._quarantine, REMOVED, trace)
        with self._acting(key):
            self._quarantined(posixpath.dirname(at))
            self._call(lambda session: self._parents(session, source))
            if self._there(source) is None:
                self._call(lambda session: _write(session, at, data, place.facts), size=len(data))
                self._move(at, source, replace=False)
            back = self._same(key, source, sha256)
            for left in (at, done):
                if self._there(left) is not None:
                    self._unlink(left)
        return back

    def hidden_copy(self, place: Place, limit: int) -> bytes:
        """As `Keeper.hidden_copy`."""
        key, at = place.key, self._at(place.where)

        async def get(session: "asyncssh.SFTPClient") -> bytes:
            async with session.open(at, "rb", encoding=None) as file:
                data: bytes = await file.read(limit + 1)
            return data

        with self._acting(key):
            entry = self._there(at)
            if entry is None or not modes.S_ISREG(entry.mode):
                raise Gone(f"{shown(key)} is not in the quarantine place")
            data = self._call(get, size=min(entry.size, limit))
        if len(data) > limit:
            raise TooLarge(f"the hidden copy of {shown(key)} has more bytes than the limit of {limit}")
        return data

    def is_public(self, place: Place) -> bool | None:
        """As `Keeper.is_public`: the folder is not shown by anything we could ask."""
        return None

    def _call(self, make: "Callable[[asyncssh.SFTPClient], Awaitable[T]]", *, size: int = 0) -> T:
        return self._wire.call(make, size=size)

    def _at(self, spot: str) -> bytes:
        parts = parts_of(spot)
        if parts is None or parts[0].startswith("."):
            raise Misconfigured(f"{shown(spot)} cannot be a place in quarantine")
        return posixpath.join(self._quarantine, _bytes(spot))

    def _file(self, path: bytes) -> FolderEntry | None:
        return self._call(lambda session: self._looked_or_none(session, path))

    def _there(self, path: bytes) -> FolderEntry | None:
        return self._call(lambda session: _lstat(session, path))

    def _move(self, source: bytes, to: bytes, *, replace: bool) -> None:
        self._call(lambda session: _move(session, source, to, replace=replace))

    def _unlink(self, path: bytes) -> None:
        self._call(lambda session: _unlink(session, path))

    async def _looked_or_none(self, session: "asyncssh.SFTPClient", path: bytes) -> FolderEntry | None:
        try:
            return await self._looked(session, path)
        except Gone:
            return None

    def _hash(self, path: bytes) -> str | None:
        """The SHA-256 of a file; "" for anything that is not a file, None where there is nothing."""

        async def digest(session: "asyncssh.SFTPClient") -> str | None:
            entry = await _lstat(session, path)
            if entry is None:
                return None
            if not modes.S_ISREG(entry.mode):
                return ""
            total = hashlib.sha256()
            async with session.open(path, "rb", encoding=None) as file:
                while True:
                    piece: bytes = await file.read(PIECE)
                    if not piece:
                        return total.hexdigest()
                    total.update(piece)

        return self._call(digest, size=1 << 30)

    def _return(self, key: str, at: bytes) -> None:
        """Put what was moved by mistake back, never over anything."""
        source = self._path(key)
        if self._there(source) is None:
            self._call(lambda session: self._parents(session, source))
            self._move(at, source, replace=False)
        if self._there(at) is not None:
            raise Changed(
                f"{shown(key)} was replaced twice just now; the bytes in between are kept at {shown(_text(at))}",
                hint="compare the two and move the one you want back by hand",
            )

    def _same(self, key: str, path: bytes, sha256: str) -> ObjectRef:
        entry = self._file(path)
        if entry is None or self._hash(path) != sha256:
            raise Occupied(f"something else lies under {shown(key)}", hint="move it away first; neither was touched")
        return self._ref(_bytes(key), entry)

    def _facts(self, path: bytes) -> dict[str, str]:
        async def look(session: "asyncssh.SFTPClient") -> "asyncssh.SFTPAttrs":
            return await session.lstat(path)

        attrs = self._call(look)
        facts = {"mode": f"{modes.S_IMODE(attrs.permissions or 0):04o}", "mtime": str(attrs.mtime or 0)}
        if attrs.uid is not None and attrs.gid is not None:
            facts |= {"uid": str(attrs.uid), "gid": str(attrs.gid)}
        return facts

    def _quarantined(self, folder: bytes) -> None:
        """Make the quarantine folder and one below it, and see that it is private."""

        async def make(session: "asyncssh.SFTPClient") -> FolderEntry | None:
            await self._rooted(session)
            await _made(session, self._quarantine, 0o700)
            below = folder.removeprefix(self._quarantine).strip(b"/")
            here = self._quarantine
            for part in below.split(b"/") if below else ():
                here = posixpath.join(here, part)
                await _made(session, here, 0o700)
            return await _lstat(session, self._quarantine)

        entry = self._call(make)
        if entry is None or not modes.S_ISDIR(entry.mode):
            raise Misconfigured(f"the quarantine folder {shown(_text(self._quarantine))} is not a folder")
        if entry.mode & 0o077:
            raise Misconfigured(
                f"the quarantine folder {shown(_text(self._quarantine))} is open to other users", hint="chmod 700 on it"
            )

    async def _parents(self, session: "asyncssh.SFTPClient", path: bytes) -> None:
        """Make the folders above a path again where they are missing, with the mode of the nearest one that is there."""
        missing: MutableSequence[bytes] = []
        folder = posixpath.dirname(path)
        while (entry := await _lstat(session, folder)) is None:
            missing.append(folder)
            folder = posixpath.dirname(folder)
        for folder in reversed(missing):
            await _made(session, folder, modes.S_IMODE(entry.mode))

    @contextmanager
    def _acting(self, key: str) -> Generator[None]:
        """Turn what the server says while something is moved into this program's errors."""
        import asyncssh

        try:
            yield
        except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath) as error:
            raise Gone(f"{shown(key)} is not there") from error
        except (asyncssh.SFTPNoSpaceOnFilesystem, asyncssh.SFTPQuotaExceeded) as error:
            raise CannotWrite(f"{shown(key)} could not be written: {error.reason}", hint="make room on the host") from error
        except asyncssh.SFTPError as error:
            raise Refused(
                f"{shown(key)} could not be moved: {error.reason}",
                hint="the account needs write access to the folder and to the quarantine folder, on the same file system",
            ) from error


def _trace(key: str, sha256: str) -> bytes:
    return hashlib.sha256(f"{key}\0{sha256}".encode(errors="surrogateescape")).hexdigest().encode()


async def _lstat(session: "asyncssh.SFTPClient", path: bytes) -> FolderEntry | None:
    import asyncssh

    try:
        return _entry(b"", await session.lstat(path))
    except (asyncssh.SFTPNoSuchFile, asyncssh.SFTPNoSuchPath, asyncssh.SFTPNotADirectory):
        return None


async def _unlink(session: "asyncssh.SFTPClient", path: bytes) -> None:
    """Delete a file of ours; one that is gone already was deleted by an earlier try."""
    import asyncssh

    with contextlib.suppress(asyncssh.SFTPNoSuchFile):
        await session.remove(path)


async def _made(session: "asyncssh.SFTPClient", folder: bytes, mode: int) -> None:
    import asyncssh

    if await _lstat(session, folder) is None:
        try:
            await session.mkdir(folder, asyncssh.SFTPAttrs(permissions=mode))
        except asyncssh.SFTPFailure:
            if await _lstat(session, folder) is None:  # otherwise someone else was faster
                raise
            return
        await session.setstat(folder, asyncssh.SFTPAttrs(permissions=mode))  # the umask took some of it away


async def _move(session: "asyncssh.SFTPClient", source: bytes, to: bytes, *, replace: bool) -> None:
    """Rename on the server; a repetition after a lost answer finds its work done.

    `replace` uses the rename of POSIX, which is one step, into a folder that is ours and where nothing lies. Without it the
    rename of SFTP is used, which refuses to replace anything; what OpenSSH makes of it (a link, then the old name deleted)
    may be cut in two, and then the old name is in the folder that is ours.
    """
    import asyncssh

    try:
        if replace:
            if await _lstat(session, to) is not None:
                return  # an earlier try did it; the caller hashes what lies there
            try:
                await session.posix_rename(source, to)
            except asyncssh.SFTPOpUnsupported:
                await session.rename(source, to)
        else:
            await session.rename(source, to)
    except asyncssh.SFTPNoSuchFile:
        if await _lstat(session, to) is None:
            raise
    except asyncssh.SFTPFailure:
        if replace or await _lstat(session, to) is None:
            raise  # otherwise: taken meanwhile; the caller reads back what lies there


async def _read(session: "asyncssh.SFTPClient", path: bytes) -> bytes:
    import asyncssh

    try:
        async with session.open(path, "rb", encoding=None) as file:
            data: bytes = await file.read()
            return data
    except asyncssh.SFTPNoSuchFile as error:
        raise Gone("it is not there") from error


async def _write(session: "asyncssh.SFTPClient", path: bytes, data: bytes, facts: Mapping[str, str]) -> None:
    """A finished file of ours; what an earlier try left there is replaced."""
    import asyncssh

    if await _lstat(session, path) is not None:
        await session.remove(path)
    async with session.open(path, "wb", asyncssh.SFTPAttrs(permissions=0o600), encoding=None) as file:
        await file.write(data)
        with contextlib.suppress(asyncssh.SFTPOpUnsupported):
            await file.fsync()
    if "uid" in facts and "gid" in facts:
        with contextlib.suppress(asyncssh.SFTPError):  # only root may give files away
            await session.setstat(path, asyncssh.SFTPAttrs(uid=int(facts["uid"]), gid=int(facts["gid"])))
    if "mode" in facts:
        await session.setstat(path, asyncssh.SFTPAttrs(permissions=int(facts["mode"], 8)))
    if "mtime" in facts:
        await session.setstat(path, asyncssh.SFTPAttrs(atime=int(facts["mtime"]), mtime=int(facts["mtime"])))
