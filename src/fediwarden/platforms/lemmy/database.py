"""A trace from Lemmy's PostgreSQL database, as a role that may read what a trace needs and no secret; writes nothing.

Which version made the database is seen from its columns. What the role may not read, or this version does not have, is
told in `Trace.limits`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fediwarden.errors import Misconfigured, Refused, Unreached
from fediwarden.platforms.lemmy.model import Community, Person, Session, Trace, Upload, Use, UseKind
from fediwarden.platforms.lemmy.queries import OLDEST, statements
from fediwarden.platforms.lemmy.wanted import wanted
from fediwarden.platforms.postgres import SIGNS, check_address

if TYPE_CHECKING:
    from psycopg import Connection

Row = dict[str, Any]

OTHERS = 1000  # other uploads of the accounts that are listed, newest first
PAGE = 1000
HINT = "`fediwarden lemmy grants` prints the rights that its role needs"
NOT_SEARCHED = "private messages were not searched: the profile does not let them be scanned"
PRIVATE = ("private message", "report of a private message")
SECRETS = (
    ("login_token", "token"),
    ("local_user", "password_encrypted"),
    ("local_user", "totp_2fa_secret"),
    ("person", "private_key"),
    ("community", "private_key"),
    ("local_image", "pictrs_delete_token"),
    ("image_upload", "pictrs_delete_token"),
    ("secret", "jwt_secret"),
    ("password_reset_request", "token"),
    ("email_verification", "verification_token"),
)


class Database:
    """One Lemmy's database. A connection is opened for each question and closed after it."""

    def __init__(self, url: str, timeout: float) -> None:
        """`url` holds a password and is never shown. Opens nothing."""
        self._url = url
        self._timeout = timeout

    def __repr__(self) -> str:
        return "Database(...)"

    def close(self) -> None:
        """Nothing is held between questions."""

    def trace(self, aliases: Sequence[str], urls: Sequence[str], *, private_messages: bool) -> Trace:
        """See `Tracer.trace`. Raises: Unreached, Refused, Misconfigured."""
        with self._connected() as connection:
            version = self._version(connection)
            named = statements("trace", version)
            limits: list[str] = []
            facts: dict[str, object] = {"aliases": list(aliases), "limit": OTHERS + 1}
            uploads = [Upload(**row) for row in self._must(connection, named["uploads"], facts)]
            uses = self._uses(connection, version, aliases, urls, limits, private_messages=private_messages)
            uploaders = {upload.person for upload in uploads if upload.person is not None and upload.thumbnail_of is None}
            owners = {upload.person for upload in uploads if upload.person is not None}
            owners |= {use.by for use in uses if use.by is not None}
            facts |= {"persons": sorted(owners), "communities": sorted({use.community for use in uses if use.community})}
            persons = [Person(**_known(row)) for row in self._must(connection, named["persons"], facts)]
            communities = [Community(**_known(row)) for row in self._may(connection, named, "communities", facts, limits)]
            sessions = [Session(**_known(row)) for row in self._may(connection, named, "sessions", facts, limits)]
            facts["persons"] = sorted(uploaders)
            others = [Upload(**row) for row in self._may(connection, named, "other_uploads", facts, limits)]
            if len(others) > OTHERS:
                limits.append(f"only the newest {OTHERS:,} other uploads are listed")
        return Trace(
            version="1.0" if version == "1.0" else "0.19",
            source="database",
            aliases=tuple(aliases),
            urls=tuple(urls),
            uploads=tuple(uploads),
            uses=tuple(uses),
            persons=tuple(persons),
            communities=tuple(communities),
            sessions=tuple(sessions),
            other_uploads=tuple(others[:OTHERS]),
            limits=tuple(limits),
        )

    def aliases(self) -> Iterator[str]:
        """Every alias that Lemmy has on record, page by page. Raises: Unreached, Refused."""
        after = ""
        while True:
            with self._connected() as connection:
                named = statements("trace", self._version(connection))
                page = self._must(connection, named["aliases"], {"after": after, "limit": PAGE})
            for row in page:
                after = row["alias"]
                yield after
            if len(page) < PAGE:
                return

    def secrets_readable(self) -> tuple[str, ...]:
        """Columns with secrets that this role could read, for `doctor`; a trace reads none. Raises: Unreached, Refused."""
        names = [f"{table}.{column}" for table, column in SECRETS]
        with self._connected() as connection:
            rows = self._must(connection, READABLE, {"names": names})
        return tuple(row["name"] for row in rows)

    def _uses(
        self,
        connection: "Connection[Row]",
        version: str,
        aliases: Sequence[str],
        urls: Sequence[str],
        limits: list[str],
        *,
        private_messages: bool,
    ) -> list[Use]:
        search = wanted(aliases, urls, cut_at_ampersand=version != "1.0")
        if not search.like:
            return []
        named = statements("trace", version)
        facts = {"like": list(search.like), "exact": search.exact}
        found: list[Use] = []
        for title in named:
            what = title.removeprefix("uses ")
            if what == title:
                continue
            if what in PRIVATE and not private_messages:
                continue
            kind = UseKind.REPORT if what.startswith("report of") else UseKind(what)
            found += [Use(kind, **_known(row)) for row in self._may(connection, named, title, facts, limits)]
        if not private_messages:
            limits.append(NOT_SEARCHED)
        return found

    def _version(self, connection: "Connection[Row]") -> str:
        """Which Lemmy made this database, told by its columns. Raises: Refused."""
        columns = {row["name"] for row in self._must(connection, COLUMNS, {})}
        if {"local_image.person_id", "person.ap_id"} <= columns:
            return "1.0"
        if {"local_image.local_user_id", "person.actor_id"} <= columns:
            return "0.19"
        if {"image_upload.local_user_id", "person.actor_id"} <= columns:
            return OLDEST
        raise Refused("this is no database of Lemmy 0.19 or 1.0", hint="name its database in the address: postgresql://.../lemmy")

    def _must(self, connection: "Connection[Row]", statement: str, facts: Mapping[str, object]) -> list[Row]:
        import psycopg

        try:
            return connection.execute(statement.encode(), facts).fetchall()
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            raise Refused(f"Lemmy's database: {_line(error)}", hint=HINT) from error
        except psycopg.errors.QueryCanceled as error:
            raise Unreached(
                f"Lemmy's database gave no answer within {self._timeout:.0f} seconds", hint="raise [lemmy] timeout_seconds"
            ) from error
        except psycopg.Error as error:
            raise Unreached(f"Lemmy's database: {_line(error)}") from error

    def _may(
        self, connection: "Connection[Row]", named: Mapping[str, str], title: str, facts: Mapping[str, object], limits: list[str]
    ) -> list[Row]:
        try:
            return self._must(connection, named[title], facts)
        except Refused as error:
            limits.append(f"{title.removeprefix('uses ').replace('_', ' ')} could not be searched: {error}")
            return []

    @contextmanager
    def _connected(self) -> "Iterator[Connection[Row]]":
        try:
            import psycopg
            from psycopg.rows import dict_row
        except ImportError as error:
            raise Misconfigured("no PostgreSQL driver is installed", hint="pip install 'fediwarden[postgres]'") from error
        check_address(
            self._url,
            "`database` of Lemmy's credentials is no address of a PostgreSQL database",
            f"it looks like postgresql://fediwarden:PASSWORD@127.0.0.1/lemmy; {SIGNS}",
        )
        options = f"-c default_transaction_read_only=on -c statement_timeout={int(self._timeout * 1000)} -c timezone=UTC"
        try:
            connection = psycopg.connect(
                self._url,
                autocommit=True,
                row_factory=dict_row,
                connect_timeout=max(2, int(self._timeout)),
                options=options,
                application_name="fediwarden",
            )
        except psycopg.Error as error:
            raise Unreached(f"Lemmy's database cannot be reached: {_line(error)}") from error
        with connection:
            yield connection


COLUMNS = """
SELECT c.relname || '.' || a.attname AS name
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
WHERE pg_catalog.pg_table_is_visible(c.oid) AND a.attnum > 0 AND NOT a.attisdropped
    AND c.relname IN ('local_image', 'image_upload', 'person')
"""
READABLE = """
SELECT c.relname || '.' || a.attname AS name
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
WHERE pg_catalog.pg_table_is_visible(c.oid) AND a.attnum > 0 AND NOT a.attisdropped
    AND c.relname || '.' || a.attname = ANY (%(names)s)
    AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
ORDER BY 1
"""


def _known(row: Row) -> Row:
    """Without what is NULL: the values' own defaults say that nothing is known."""
    return {name: value for name, value in row.items() if value is not None}


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
