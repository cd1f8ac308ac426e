"""The PostgreSQL repository of pict-rs 0.5, read only: contents with their aliases, variants and the URLs they were fetched from.

Never writes, never selects a delete token. A role that may SELECT on `hashes`, `variants`, `proxies`, `details` and the columns
`alias` and `hash` of `aliases` is enough.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import RLock
from typing import TYPE_CHECKING, Any, LiteralString

from fediwarden.errors import Misconfigured, Refused, Unreached
from fediwarden.model import Sha256
from fediwarden.platforms.pictrs.hashes import FORMATS, Hash
from fediwarden.platforms.pictrs.words import Item, moment
from fediwarden.platforms.postgres import SIGNS, check_address

if TYPE_CHECKING:
    from psycopg import Connection

AT_ONCE = 500  # contents in one page
Cursor = tuple[datetime, str]
"""Where a page ended: time and hash of its last row."""

GRANTS = """GRANT SELECT ON hashes, variants, proxies, details TO {role};
GRANT SELECT (alias, hash) ON aliases TO {role};
"""
"""What the role needs; delete tokens are not part of it."""

_CONTENTS: LiteralString = """
SELECT h.hash, h.identifier, h.motion_identifier, h.created_at, d.json->>'content_type', d.json->>'created_at'
FROM hashes h LEFT JOIN details d ON d.identifier = h.identifier
"""
_PAGE: LiteralString = _CONTENTS + "WHERE (h.created_at, h.hash) < (%s, %s) ORDER BY h.created_at DESC, h.hash DESC LIMIT %s"
_NAMED: LiteralString = _CONTENTS + "WHERE h.hash = ANY(%s)"
_FOUND: LiteralString = _CONTENTS + "WHERE h.hash LIKE %s"
_ALIASES: LiteralString = "SELECT hash, alias FROM aliases WHERE hash = ANY(%s) ORDER BY alias"
_VARIANTS: LiteralString = "SELECT hash, variant, identifier FROM variants WHERE hash = ANY(%s) ORDER BY variant"
_PROXIED: LiteralString = (
    "SELECT a.hash, a.alias, p.url FROM proxies p JOIN aliases a ON a.alias = p.alias WHERE a.hash = ANY(%s) ORDER BY p.url"
)
_ALIASED: LiteralString = "SELECT hash FROM aliases WHERE alias = %s"
_RESOLVED: LiteralString = """
SELECT identifier, 'original', hash FROM hashes WHERE identifier = ANY(%(keys)s)
UNION ALL SELECT motion_identifier, 'motion', hash FROM hashes WHERE motion_identifier = ANY(%(keys)s)
UNION ALL SELECT identifier, 'variant', hash FROM variants WHERE identifier = ANY(%(keys)s)
"""
_LEFT: LiteralString = (
    "SELECT EXISTS (SELECT FROM hashes WHERE hash = %(hash)s) OR EXISTS (SELECT FROM variants WHERE hash = %(hash)s)"
)


def item_named(name: bytes, aliases: tuple[str, ...], **more: Any) -> Item:
    """An item of 0.5 by its hash. A format byte that is not known here makes one without a parsed hash."""
    try:
        parsed: Hash | None = Hash.from_hex(name.hex())
    except ValueError:
        parsed = None
    return Item(name.hex(), aliases, parsed, **more)


class Repository:
    """One connection, opened at the first question and shared by all threads; opened again after it broke.

    Every method may raise Unreached (no answer), Refused (the role may not, or this is no pict-rs) and Misconfigured
    (psycopg is missing, or the address is none).
    """

    def __init__(self, url: str, *, seconds: float = 30.0) -> None:
        self._url = url
        self._seconds = seconds
        self._lock = RLock()
        self._connection: Connection[Any] | None = None
        self.questions = 0  # one for each call, however many statements that is

    def __repr__(self) -> str:
        return "Repository()"  # the address may hold a password

    def close(self) -> None:
        """Give back the connection. May be called twice."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def page(self, after: Cursor | None = None) -> tuple[tuple[Item, ...], Cursor | None]:
        """The newest contents, or those that follow the cursor of the page before; None for a cursor ends the listing."""
        rows = self._ask(_PAGE, (*(after or (datetime.max, "")), AT_ONCE))  # noqa: DTZ901 - a column without zone
        return self._items(rows), (rows[-1][3], rows[-1][0]) if len(rows) == AT_ONCE else None

    def find(self, sha256: Sha256, size: int | None = None) -> Item | None:
        """The content with these bytes; the first where pict-rs took the same bytes for two formats. With `size` it is quick."""
        if size is not None:
            names = [Hash(sha256, size, number).base64 for number in range(len(FORMATS))]
            rows = self._ask(_NAMED, (names,))
        else:
            # 30 of the 32 bytes make whole groups of base64; LIKE then finds few rows, and the rest is compared here
            start = b64encode(bytes.fromhex(sha256))[:40].decode()
            rows = [row for row in self._ask(_FOUND, (start + "%",)) if _raw(row[0])[:32].hex() == sha256]
        return next(iter(self._items(rows[:1])), None)

    def named(self, name: bytes) -> Item | None:
        """The content of this hash."""
        return next(iter(self._items(self._ask(_NAMED, ([b64encode(name).decode()],)))), None)

    def aliased(self, alias: str) -> Item | None:
        """The content that this alias names."""
        if "\0" in alias:
            return None
        rows = self._ask(_ALIASED, (_text(alias),))
        return next(iter(self._items(self._ask(_NAMED, ([rows[0][0]],), more=True))), None) if rows else None

    def resolve(self, identifiers: Sequence[str]) -> dict[str, tuple[str, Item]]:
        """What keys of the store behind are: "original", "motion" or "variant" of which content. Unknown ones are left out."""
        keys = [_text(key) for key in identifiers if "\0" not in key]
        rows = self._ask(_RESOLVED, {"keys": keys}) if keys else []
        items = {}
        if rows:
            named = self._ask(_NAMED, (list({row[2] for row in rows}),), more=True)
            items = {item.key: item for item in self._items(named)}
        found = ((row[0], row[1], _raw(row[2]).hex()) for row in rows)
        return {identifier: (kind, items[key]) for identifier, kind, key in found if key in items}

    def holds(self, name: bytes) -> bool:
        """Whether a row of this content, or of a variant of it, is left."""
        return bool(self._ask(_LEFT, {"hash": b64encode(name).decode()})[0][0])

    def _items(self, rows: Sequence[tuple[Any, ...]]) -> tuple[Item, ...]:
        """Contents with what hangs on them, in the order of the rows."""
        if not rows:
            return ()
        hashes = [row[0] for row in rows]
        aliases: dict[str, list[str]] = {}
        variants: dict[str, list[tuple[str, str]]] = {}
        proxied: dict[str, list[tuple[str, str]]] = {}
        for name, alias in self._ask(_ALIASES, (hashes,), more=True):
            aliases.setdefault(name, []).append(alias)
        for name, variant, identifier in self._ask(_VARIANTS, (hashes,), more=True):
            variants.setdefault(name, []).append((variant, identifier))
        for name, alias, url in self._ask(_PROXIED, (hashes,), more=True):
            proxied.setdefault(name, []).append((alias, url))
        return tuple(
            item_named(
                _raw(name),
                tuple(aliases.get(name, ())),
                created=moment(made) or at.replace(tzinfo=UTC),
                content_type=content_type or "",
                identifier=identifier,
                motion=motion or "",
                variants=tuple(variants.get(name, ())),
                proxied=tuple(proxied.get(name, ())),
            )
            for name, identifier, motion, at, content_type, made in rows
        )

    def _ask(self, query: LiteralString, parameters: Any, *, more: bool = False) -> list[tuple[Any, ...]]:
        """`more`: it belongs to the question before."""
        with self._lock, self._reaching():
            self.questions += not more
            connection = self._open()
            try:
                return connection.execute(query, parameters).fetchall()
            except BaseException:
                if connection.broken or connection.closed:
                    self._connection = None
                raise

    def _open(self) -> "Connection[Any]":
        if self._connection is not None and not self._connection.closed:
            return self._connection
        import psycopg

        check_address(
            self._url,
            "`database` in the credentials file is no PostgreSQL address",
            f'write database = "postgresql://role@host/pictrs", with the password in ~/.pgpass or in the address; {SIGNS}',
        )
        self._connection = psycopg.connect(
            self._url,
            autocommit=True,
            connect_timeout=max(2, int(self._seconds)),
            application_name="fediwarden",
            options=f"-c default_transaction_read_only=on -c statement_timeout={int(self._seconds * 1000)}",
        )
        return self._connection

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            import psycopg
        except ImportError as error:
            raise Misconfigured(
                "pict-rs' repository is PostgreSQL, and psycopg is not installed", hint="pip install 'fediwarden[postgres]'"
            ) from error
        try:
            yield
        except psycopg.Error as error:
            state = error.sqlstate or ""
            words = (str(error).strip().splitlines() or [type(error).__name__])[0]
            if state == "42501":
                hint = "as its owner: " + " ".join(GRANTS.format(role="the_role").split("\n")).strip()
                raise Refused(f"pict-rs' database lets this role read too little: {words}", hint=hint) from error
            if state.startswith("42"):
                raise Refused("the database is not the repository of a pict-rs 0.5", hint="check `database`") from error
            if state.startswith(("28", "3D")) or "authentication failed" in words:
                raise Refused(f"pict-rs' database does not let us in: {words}", hint="check `database`") from error
            raise Unreached(f"pict-rs' database gave no answer: {words}", hint="check `database`, and that it runs") from error


def _raw(name: str) -> bytes:
    """The bytes of `hashes.hash`. Raises: Unreached for a row that is no hash."""
    try:
        return b64decode(name, validate=True)
    except ValueError as error:
        raise Unreached(f"pict-rs' database holds a hash that is none: {name[:60]!r}") from error


def _text(key: str) -> str:
    """What PostgreSQL can compare with; a key that is not UTF-8 is no identifier of pict-rs and matches nothing."""
    return key.encode("utf-8", "replace").decode()
