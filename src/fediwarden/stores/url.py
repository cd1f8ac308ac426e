"""What an operator may write to name a store, taken apart; nothing is opened, no folder has to exist."""

import ipaddress
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import unquote, urlsplit

from fediwarden.errors import Misconfigured
from fediwarden.model import StoreName
from fediwarden.stores.naming import shown

BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}")
KINDS = "write /path, file:///path, s3://bucket/prefix, sftp://user@host/path or pictrs://host:port"


class TargetKind(StrEnum):
    """What kind of store a URL names."""

    FOLDER = "folder"
    S3 = "s3"
    SFTP = "sftp"
    PICTRS = "pict-rs"


@dataclass(frozen=True, slots=True)
class Target:
    """A store's URL, taken apart. Which fields are used depends on `kind`."""

    kind: TargetKind
    path: str = ""  # folder and SFTP; bytes that are not UTF-8 as surrogate escapes
    bucket: str = ""
    prefix: str = ""  # S3: "" or ends with "/"
    host: str = ""
    port: int = 22
    user: str = ""  # "": the name of the local user
    address: str = ""  # pict-rs: where its HTTP interface is called


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where S3 requests go."""

    tls: bool
    host: str
    port: int
    region: str = "us-east-1"
    path_style: bool = True


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """One store as configured; `open_reader` and `open_keeper` make something of it.

    `quarantine` is a folder for a folder and for SFTP, and `s3://bucket/prefix` or a prefix in the same bucket for S3;
    empty means beside the store, or `fediwarden-quarantine/`. `public_url` is where the media can be seen on the web.
    """

    name: StoreName
    url: str
    endpoint: str = ""
    region: str = "us-east-1"
    path_style: bool = True
    allow_http: bool = False
    credentials: Path | None = None
    keeper_credentials: Path | None = None
    quarantine: str = ""
    hide: str = "move"  # or "remove": for `actions`, which then calls `remove` instead of `hide`
    known_hosts: Path | None = None
    public_url: str = ""
    pictrs: str = ""  # the pict-rs store whose files lie here
    overlap_seconds: float = 60.0  # pict-rs: how far listings by time overlap
    settle_seconds: float = 2.0
    timeout_seconds: float = 30.0
    tries: int = 6
    patience_seconds: float = 60.0


def parse_target(text: str) -> Target:
    """What kind of store `text` names. Raises: Misconfigured, with a hint."""
    scheme, separator, rest = text.partition("://")
    if "\0" in text or not text.strip():
        raise Misconfigured(f"{shown(text)} does not name a store", hint=KINDS)
    if not separator:
        if re.fullmatch(r"[^/\s]+@?[^/\s]*:(/|~).*", text):
            raise Misconfigured(f"{shown(text)} looks like an address for scp", hint="write sftp://user@host/path")
        return Target(TargetKind.FOLDER, path=text)
    match scheme.lower():
        case "file":
            host, slash, path = rest.partition("/")
            if host not in ("", "localhost") or not slash:
                raise Misconfigured(f"{shown(text)} does not name a folder of this machine", hint="write file:///path")
            return Target(TargetKind.FOLDER, path="/" + unquote(path, errors="surrogateescape"))
        case "s3":
            return parse_bucket(text)
        case "sftp":
            return _sftp(text)
        case "pictrs" | "pictrs+https" | "pictrs+http":
            return _pictrs(text, "https" if scheme.lower().endswith("https") else "http")
        case "ssh" | "scp":
            raise Misconfigured(f"{shown(text)}: a store over SSH is read by SFTP", hint="write sftp://user@host/path")
        case "http" | "https":
            raise Misconfigured(
                f"{shown(text)} is the address of a server, not of a store",
                hint="write s3://bucket and give the address as `endpoint`; for pict-rs pictrs://host:port or pictrs+https://host",
            )
        case other:
            raise Misconfigured(f"no kind of store is called {shown(other)}", hint=KINDS)


def parse_bucket(text: str) -> Target:
    """An `s3://bucket/prefix` URL; the prefix is taken literally. Raises: Misconfigured."""
    bucket, _, prefix = text.partition("://")[2].partition("/")
    if not BUCKET.fullmatch(bucket):
        raise Misconfigured(f"{shown(bucket)} cannot be a bucket's name", hint="write s3://bucket or s3://bucket/prefix")
    return Target(TargetKind.S3, bucket=bucket, prefix=prefix if not prefix or prefix.endswith("/") else prefix + "/")


def _sftp(text: str) -> Target:
    try:
        parts = urlsplit(text)
        port = parts.port or 22
    except ValueError as error:
        raise Misconfigured(f"{shown(text)} is not a complete address", hint="write sftp://user@host:22/path") from error
    if parts.password is not None:
        raise Misconfigured(
            f"the address of {shown(parts.hostname or '')} holds a password, which other users of this machine can see",
            hint="use a key: `credentials` names a file with `user` and `key`, or let ssh-agent hold it",
        )
    if not parts.hostname or parts.query or parts.fragment:
        raise Misconfigured(f"{shown(text)} is not a complete address", hint="write sftp://user@host/path; %3F for ?, %23 for #")
    path = unquote(parts.path, errors="surrogateescape") or "/"
    if path == "/~" or path.startswith("/~/"):
        path = path[3:] or "."  # relative to the home of the user, as elsewhere
    return Target(TargetKind.SFTP, path=path, host=parts.hostname, port=port, user=unquote(parts.username or ""))


def _pictrs(text: str, scheme: str) -> Target:
    try:
        parts = urlsplit(text)
        port = parts.port or (443 if scheme == "https" else 8080)
    except ValueError as error:
        raise Misconfigured(f"{shown(text)} is not a complete address", hint="write pictrs://host:8080") from error
    if not parts.hostname or parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise Misconfigured(
            f"{shown(parts.hostname or '')} is not a complete address, or holds more than one",
            hint="write pictrs://host:8080; the API key belongs into the `credentials` file",
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    path = parts.path.rstrip("/")
    return Target(TargetKind.PICTRS, path=path, host=parts.hostname, port=port, address=f"{scheme}://{host}:{port}{path}")


def pictrs_address(settings: StoreSettings, target: Target) -> str:
    """Where the requests of a pict-rs store go; the API key goes along. Raises: Misconfigured."""
    if target.address.startswith("http://") and not settings.allow_http and not _loopback(target.host):
        raise Misconfigured(
            f"the address of pict-rs ({shown(target.address)}) is not encrypted, and its API key would go over it",
            hint="write pictrs+https://, or set `allow_http = true` in a network you trust, such as Docker's own",
        )
    return target.address


def endpoint_of(settings: StoreSettings) -> Endpoint:
    """Where the requests of an S3 store go. Raises: Misconfigured."""
    text = settings.endpoint or f"https://s3.{settings.region}.amazonaws.com"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise Misconfigured(f"{shown(text)} cannot be an endpoint", hint="write https://host or https://host:port") from error
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or parts.path not in ("", "/")
        or parts.query
        or parts.username
    ):
        raise Misconfigured(
            f"{shown(text)} cannot be an endpoint", hint="write https://host or https://host:port, without a path"
        )
    if parts.scheme == "http" and not settings.allow_http and not _loopback(parts.hostname):
        raise Misconfigured(
            f"the endpoint {shown(text)} is not encrypted",
            hint="write https://, or set `allow_http = true` in a network you trust",
        )
    tls = parts.scheme == "https"
    return Endpoint(tls, parts.hostname, port or (443 if tls else 80), settings.region, settings.path_style)


def _loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
