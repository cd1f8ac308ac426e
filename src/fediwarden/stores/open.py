"""From settings to a store that can be used. Nothing is connected to and no heavy library loaded before the first call, and a
reader never opens the keeper's credentials."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event

from fediwarden.errors import Misconfigured
from fediwarden.model import Name, ObjectRef, Sha256
from fediwarden.platforms.pictrs.repository import Repository
from fediwarden.platforms.pictrs.server import Server
from fediwarden.stores.credentials import pictrs_keys, s3_keys, ssh_login
from fediwarden.stores.files import FolderKeeper, FolderReader
from fediwarden.stores.interface import Keeper, Reader
from fediwarden.stores.naming import shown
from fediwarden.stores.pictrs import PictrsKeeper, PictrsReader
from fediwarden.stores.probe import serves
from fediwarden.stores.retry import Patience
from fediwarden.stores.s3 import S3Keeper, S3Reader, Spot
from fediwarden.stores.sftp import SftpKeeper, SftpReader, Wire
from fediwarden.stores.sigv4 import S3Client
from fediwarden.stores.url import StoreSettings, Target, TargetKind, endpoint_of, parse_target, pictrs_address

QUARANTINE = "fediwarden-quarantine/"


def open_reader(
    settings: StoreSettings,
    *,
    environment: Mapping[str, str],
    stop: Event | None = None,
    aliases: Callable[[], Iterator[str]] | None = None,
    holding: Callable[[Sha256], Sequence[str]] = lambda sha256: (),
    known: Callable[[str], Sequence[Name]] = lambda key: (),
) -> Reader:
    """A store to look at. `stop`, once set, ends every waiting for another try. `aliases` to `known`: see `PictrsReader`.

    Raises: Misconfigured.
    """
    target = parse_target(settings.url)
    _must_differ(settings, target)
    patience = patience_of(settings, stop)
    match target.kind:
        case TargetKind.FOLDER:
            return FolderReader(settings.name, Path(target.path), _folder(settings), settle_seconds=settings.settle_seconds)
        case TargetKind.S3:
            client = _client(settings, patience, settings.credentials, environment)
            return S3Reader(settings.name, target.bucket, target.prefix, _spot(settings, target), client)
        case TargetKind.SFTP:
            wire = _wire(settings, target, patience, settings.credentials, environment)
            return SftpReader(settings.name, wire, target.path, settings.quarantine, settle_seconds=settings.settle_seconds)
        case TargetKind.PICTRS:
            overlap = timedelta(seconds=settings.overlap_seconds)
            server = open_server(settings)
            return PictrsReader(settings.name, server, patience, overlap=overlap, aliases=aliases, holding=holding, known=known)


def open_keeper(
    settings: StoreSettings,
    *,
    environment: Mapping[str, str],
    stop: Event | None = None,
    known: Callable[[str], Sequence[Name]] = lambda key: (),
    remember: Callable[[ObjectRef], None] = lambda ref: None,
    holding: Callable[[Sha256], Sequence[str]] = lambda sha256: (),
) -> Keeper:
    """A store to act on, with the keeper's credentials only. `known` to `holding`: see `PictrsKeeper`. Raises: Misconfigured."""
    target = parse_target(settings.url)
    _must_differ(settings, target)
    patience = patience_of(settings, stop)
    match target.kind:
        case TargetKind.FOLDER:
            return FolderKeeper(
                settings.name,
                Path(target.path),
                _folder(settings),
                settle_seconds=settings.settle_seconds,
                public_url=settings.public_url,
                probe=serves,
            )
        case TargetKind.S3:
            keys = settings.keeper_credentials
            if keys is None and settings.credentials is not None:
                raise Misconfigured(
                    f"the store {shown(settings.name)} has no keeper's credentials",
                    hint="set `keeper_credentials` to a second file, with keys that may also copy and delete",
                )
            stranger = S3Client(endpoint_of(settings), None, replace(patience, tries=2), seconds=settings.timeout_seconds)
            return S3Keeper(
                settings.name,
                target.bucket,
                target.prefix,
                _spot(settings, target),
                _client(settings, patience, keys, environment),
                stranger=stranger,
                public_url=settings.public_url,
                probe=serves,
            )
        case TargetKind.SFTP:
            wire = _wire(settings, target, patience, settings.keeper_credentials, environment)
            return SftpKeeper(settings.name, wire, target.path, settings.quarantine, settle_seconds=settings.settle_seconds)
        case TargetKind.PICTRS:
            overlap = timedelta(seconds=settings.overlap_seconds)
            server = open_server(settings, keeper=True)
            return PictrsKeeper(settings.name, server, patience, overlap=overlap, holding=holding, known=known, remember=remember)


def open_server(settings: StoreSettings, *, keeper: bool = False) -> Server:
    """The pict-rs behind a pict-rs store, with its database where the credentials file names it. Raises: Misconfigured."""
    target = parse_target(settings.url)
    if target.kind is not TargetKind.PICTRS:
        raise Misconfigured(f"the store {shown(settings.name)} is no pict-rs", hint="its `url` has to be pictrs://host:port")
    _must_differ(settings, target)
    keys = pictrs_keys(settings.keeper_credentials if keeper else settings.credentials, settings.name, keeper=keeper)
    repository = Repository(keys.database, seconds=settings.timeout_seconds) if keys.database else None
    address = pictrs_address(settings, target)
    return Server(address, key=keys.api_key, repository=repository, seconds=settings.timeout_seconds)


def _must_differ(settings: StoreSettings, target: Target) -> None:
    """One file for both would let a scan change what it looks at. Compares names and inodes; opens neither file."""
    reader, keeper = settings.credentials, settings.keeper_credentials
    if target.kind is TargetKind.FOLDER or reader is None or keeper is None:
        return
    try:
        same = reader.resolve() == keeper.resolve() or reader.samefile(keeper)
    except OSError:  # one of them is missing or out of reach, so they are not the same
        same = False
    if same:
        raise Misconfigured(
            f"`credentials` and `keeper_credentials` of the store {shown(settings.name)} are one file",
            hint="make a second file, with keys of its own, for the commands that hide and restore",
        )


def patience_of(settings: StoreSettings, stop: Event | None) -> Patience:
    """How often and how long requests to this store are tried."""
    return Patience(tries=settings.tries, seconds=settings.patience_seconds, stop=stop or Event())


def _folder(settings: StoreSettings) -> Path | None:
    if settings.quarantine and "://" in settings.quarantine:
        raise Misconfigured(
            f"the quarantine place of {shown(settings.name)} is no folder", hint="write a path on the same file system"
        )
    return Path(settings.quarantine) if settings.quarantine else None


def _spot(settings: StoreSettings, target: Target) -> Spot:
    """`quarantine` as a place in S3: `s3://bucket/prefix`, or a prefix in the store's bucket."""
    if not settings.quarantine:
        return Spot(target.bucket, QUARANTINE)
    if "://" not in settings.quarantine:
        prefix = settings.quarantine.lstrip("/")
        return Spot(target.bucket, prefix if not prefix or prefix.endswith("/") else prefix + "/")
    other = parse_target(settings.quarantine)
    if other.kind is not TargetKind.S3:
        raise Misconfigured(
            f"the quarantine place of {shown(settings.name)} is not in S3", hint="write s3://bucket/prefix or a prefix"
        )
    return Spot(other.bucket, other.prefix)


def _client(settings: StoreSettings, patience: Patience, credentials: Path | None, environment: Mapping[str, str]) -> S3Client:
    keys = s3_keys(credentials, environment)
    return S3Client(endpoint_of(settings), keys, patience, seconds=settings.timeout_seconds)


def _wire(
    settings: StoreSettings, target: Target, patience: Patience, credentials: Path | None, environment: Mapping[str, str]
) -> Wire:
    login = ssh_login(credentials)
    home = Path(environment.get("HOME") or Path.home())
    return Wire(
        host=target.host,
        port=target.port,
        user=login.user or target.user,
        key=login.key,
        home=home,
        known_hosts=settings.known_hosts,
        agent=environment.get("SSH_AUTH_SOCK", ""),
        patience=patience,
        seconds=settings.timeout_seconds,
    )
