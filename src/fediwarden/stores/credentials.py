"""The small TOML files that hold a store's keys; a file that others may read is refused, and nothing is ever asked for."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fediwarden.errors import Misconfigured
from fediwarden.stores.naming import shown


@dataclass(frozen=True, slots=True)
class S3Keys:
    """What signs S3 requests."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class SshLogin:
    """Who logs in over SSH, and with which private key file; without one the agent and `~/.ssh` are asked."""

    user: str = ""
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class PictrsKeys:
    """What opens pict-rs: its API key, or the address of its PostgreSQL database, or both. "" for what is not given."""

    api_key: str = field(default="", repr=False)
    database: str = field(default="", repr=False)  # may hold a password


def s3_keys(path: Path | None, environment: Mapping[str, str]) -> S3Keys:
    """The keys in the file, or those in the environment where no file is configured. Raises: Misconfigured."""
    if path is None:
        keys = S3Keys(
            environment.get("AWS_ACCESS_KEY_ID", ""),
            environment.get("AWS_SECRET_ACCESS_KEY", ""),
            environment.get("AWS_SESSION_TOKEN", ""),
        )
        if not keys.access_key_id or not keys.secret_access_key:
            raise Misconfigured(
                "no S3 keys were given",
                hint="set `credentials` of the store to a file, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            )
        return keys
    values = _read(path, {"access_key_id", "secret_access_key"}, {"session_token"})
    return S3Keys(values["access_key_id"], values["secret_access_key"], values.get("session_token", ""))


def pictrs_keys(path: Path | None, store: str, *, keeper: bool = False) -> PictrsKeys:
    """The keys in the file; a keeper's must have an API key. Raises: Misconfigured."""
    setting = "keeper_credentials" if keeper else "credentials"
    if path is None:
        raise Misconfigured(
            f"no credentials were given for pict-rs ({shown(store)})",
            hint=f"set `{setting}` of the store to a file with `api_key`" + ("" if keeper else " or `database`"),
        )
    values = _read(path, {"api_key"} if keeper else set(), {"api_key", "database"})
    if not values:
        raise Misconfigured(
            f"the credentials file {shown(str(path))} is empty",
            hint='write api_key = "...", or database = "postgresql://role@host/pictrs" for a scan that only reads',
        )
    return PictrsKeys(values.get("api_key", ""), values.get("database", ""))


def mail_login(path: Path) -> tuple[str, str]:
    """User and password for a mail server. Raises: Misconfigured."""
    values = _read(path, {"user", "password"}, set())
    return values["user"], values["password"]


def ssh_login(path: Path | None) -> SshLogin:
    """The login in the file; without a file, the agent's. Raises: Misconfigured."""
    if path is None:
        return SshLogin()
    values = _read(path, set(), {"user", "key"})
    key = values.get("key", "")
    return SshLogin(values.get("user", ""), path.parent / Path(key).expanduser() if key else None)


@dataclass(frozen=True, slots=True)
class LemmyAccess:
    """How a Lemmy server may be asked: its database as a role of little right, or the token of an account; one of them is there."""

    database: str = field(default="", repr=False)
    jwt: str = field(default="", repr=False)


def lemmy_access(path: Path) -> LemmyAccess:
    """What the file says about a Lemmy server. Raises: Misconfigured."""
    values = _read(path, set(), {"database", "jwt"})
    access = LemmyAccess(values.get("database", ""), values.get("jwt", ""))
    if not access.database and not access.jwt:
        raise Misconfigured(
            f"the credentials file {shown(str(path))} names neither `database` nor `jwt`",
            hint='database = "postgresql://fediwarden:PASSWORD@127.0.0.1/lemmy", with the rights of `fediwarden lemmy grants`',
        )
    return access


def _read(path: Path, needed: set[str], possible: set[str]) -> Mapping[str, str]:
    try:
        with path.open("rb") as file:
            mode = path.stat().st_mode
            text = file.read(65536)
    except OSError as error:
        raise Misconfigured(f"the credentials file {shown(str(path))} cannot be read: {error.strerror}") from error
    if mode & 0o007:
        raise Misconfigured(f"every user of this machine can use the credentials file {shown(str(path))}", hint="chmod 600 on it")
    try:
        values = tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # the parser's words are not shown: they may quote a secret
        raise Misconfigured(
            f"the credentials file {shown(str(path))} is not TOML", hint='write lines such as user = "name"'
        ) from error
    strange = sorted(name for name, value in values.items() if name not in needed | possible or not isinstance(value, str))
    missing = sorted(name for name in needed if not values.get(name))
    if strange or missing:
        wrong = ", ".join(
            [*(f"{shown(name)} is unknown or not a text" for name in strange), *(f"{name} is missing" for name in missing)]
        )
        raise Misconfigured(
            f"the credentials file {shown(str(path))} is incomplete or wrong: {wrong}",
            hint=f"it holds {', '.join(sorted(needed | possible))}",
        )
    return values
