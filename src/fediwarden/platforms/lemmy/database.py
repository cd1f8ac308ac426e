"""A trace from Lemmy's PostgreSQL database, as a role that may read what a trace needs and no secret; writes nothing.

Which version made the database is seen from its columns. What the role may not read, or this version does not have, is
told in `Trace.limits`.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fediwarden.errors import Misconfigured, Refused, Unreached
from fediwarden.platforms.lemmy.image_urls import canonical, own_alias, wanted, whole_addresses
from fediwarden.platforms.lemmy.model import Community, Copy, LoginSession, Person, Trace, Upload, Use, UseKind
from fediwarden.platforms.lemmy.queries import OLDEST, Column, Search, searches, statements
from fediwarden.platforms.postgres import SIGNS, check_address

if TYPE_CHECKING:
    from psycopg import Connection

Row = dict[str, Any]

OTHERS = 1000  # other uploads of the accounts that are listed, newest first
PAGE = 1000
HINT = "`fediwarden lemmy grants` prints the rights that its role needs"
NOT_SEARCHED = "private messages were not searched: the profile does not let them be scanned"
NOT_GRANTED = f"the role may not read it; {HINT}"
NOT_THERE = "this version of Lemmy has no"
SEARCHES = 6  # how many times the time of one answer all searches of a trace may take; what is left then is named
NO_TIME = "not asked, because the searches before it took too long"
PICTURE = re.compile(
    r"\.(?:jpe?g|png|gif|webp|avif|jxl|bmp|mp4|webm)\Z", re.IGNORECASE
)  # how the path of a picture's address ends
IN_CODE = "not searched for addresses with encoded signs (%61, &#97;)"
PRIVATE = ("private message", "report of a private message")
SECRETS = (
    ("login_token", "token"),
    ("local_user", "password_encrypted"),
    ("local_user", "totp_2fa_secret"),
    ("person", "private_key"),
    ("community", "private_key"),
    ("site", "private_key"),
    ("multi_community", "private_key"),
    ("oauth_provider", "client_secret"),
    ("local_user_invite", "token"),
    ("captcha_answer", "answer"),
    ("local_image", "pictrs_delete_token"),
    ("image_upload", "pictrs_delete_token"),
    ("secret", "jwt_secret"),
    ("password_reset_request", "token"),
    ("email_verification", "verification_token"),
)


@dataclass(slots=True)
class _Asked:
    """One trace under way: what answered stands, and what did not is named."""

    connection: "Connection[Row]"
    readable: frozenset[str]  # "post.url": columns that the role may read
    present: frozenset[str]  # columns that there are
    until: float  # when nothing further is searched, by the monotonic clock
    silent: dict[str, list[str]] = field(default_factory=dict)  # why: what was not asked or gave no answer
    doubts: set[str] = field(default_factory=set)  # those of `silent` behind which owners may stand
    answered: int = 0

    def missed(self, why: str, what: str, *, owners: bool = False) -> None:
        """Note what was not searched."""
        self.silent.setdefault(why, []).append(what)
        if owners:
            self.doubts.add(why)

    @property
    def limits(self) -> list[str]:
        """A line for each reason."""
        return [_limit(why, whats) for why, whats in self.silent.items()]


@dataclass(frozen=True, slots=True)
class _Question:
    """Some columns of one table that are searched at once."""

    place: Search
    columns: tuple[Column, ...]
    whole: tuple[Column, ...] = ()  # those that are asked for whole addresses besides
    equal: bool = False
    encoded: bool = False  # in spellings that hide the name from every index

    def name(self, column: Column) -> str:
        return f"{self.place.table}.{column.name}"

    def about(self, why: str) -> str:
        """Of what was not asked, or gave no answer."""
        return f"{IN_CODE}: {why}" if self.encoded else why

    def statement(self, readable: frozenset[str]) -> str:
        if self.encoded:
            return self.place.encoded(self.columns, readable)
        return self.place.equal(self.columns, readable) if self.equal else self.place.inside(self.columns, readable)


class Database:
    """One Lemmy's database. A connection is opened for each question and closed after it."""

    def __init__(self, url: str, timeout: float, base: str = "") -> None:
        """`url` holds a password and is never shown; `base` is where Lemmy answers, if that is known. Opens nothing."""
        self._url = url
        self._base = base
        self._timeout = timeout

    def __repr__(self) -> str:
        return "Database(...)"

    def close(self) -> None:
        """Nothing is held between questions."""

    def trace(self, aliases: Sequence[str], urls: Sequence[str], *, private_messages: bool) -> Trace:
        """See `Tracer.trace`. Each column is asked by itself if need be: what gives no answer is a limit, and the rest stands.

        Raises: Unreached where nothing answered at all, Refused, Misconfigured.
        """
        aliases = tuple(map(canonical, aliases))
        with self._connected() as connection:
            version, present, readable = self._columns(connection)
            asked = _Asked(connection, readable, present, time.monotonic() + SEARCHES * self._timeout)
            named = statements("trace", version)
            facts: dict[str, object] = {"aliases": list(aliases), "limit": OTHERS + 1}
            uploads = [Upload(**row) for row in self._need(asked, named, "uploads", facts, owners=True)]
            hosts = self._hosts(asked, named)
            uses = self._uses(asked, version, hosts, aliases, urls, private_messages=private_messages)
            copies = self._copies(asked, named, hosts, uses, uploads, aliases)
            uploaders = {upload.person for upload in uploads if upload.person is not None and upload.thumbnail_of is None}
            owners = {upload.person for upload in uploads if upload.person is not None}
            owners |= {use.by for use in uses if use.by is not None}
            facts |= {"persons": sorted(owners), "communities": sorted({use.community for use in uses if use.community})}
            persons = [Person(**_known(row)) for row in self._need(asked, named, "persons", facts, owners=True)]
            communities = [Community(**_known(row)) for row in self._may(asked, named, "communities", facts)]
            sessions = [LoginSession(**_known(row)) for row in self._may(asked, named, "sessions", facts)]
            facts["persons"] = sorted(uploaders)
            others = [Upload(**row) for row in self._may(asked, named, "other_uploads", facts)]
        if not asked.answered:
            raise Unreached(
                f"Lemmy's database gave no answer within {self._timeout:.0f} seconds", hint="raise [lemmy] timeout_seconds"
            )
        limits = asked.limits
        if not private_messages:
            limits.append(NOT_SEARCHED)
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
            copies=tuple(copies),
            limits=tuple(limits),
            complete=not asked.doubts,
        )

    def aliases(self) -> Iterator[str]:
        """Every alias that Lemmy has on record, page by page. Raises: Unreached, Refused."""
        after = ""
        while True:
            with self._connected() as connection:
                named = statements("trace", self._columns(connection)[0])
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

    def _hosts(self, asked: _Asked, named: Mapping[str, str]) -> tuple[str, ...]:
        """This server's own, with and without a port; what Lemmy's accounts stand at first. Where none can be told, columns are
        searched and never asked for whole addresses."""
        try:
            rows = self._ask(asked, named["domain"], {})
        except (Refused, Unreached):
            rows = []
        told = [host for row in rows for host in (urlsplit(str(row["address"])).netloc, str(row["domain"]))]
        hosts = (host.lower() for host in (*told, urlsplit(self._base).netloc))
        return tuple(dict.fromkeys(filter(None, hosts)))

    # -- what shows it ------------------------------------------------------------------------------------------------

    def _uses(
        self,
        asked: _Asked,
        version: str,
        hosts: Sequence[str],
        aliases: Sequence[str],
        urls: Sequence[str],
        *,
        private_messages: bool,
    ) -> list[Use]:
        search = wanted(aliases, urls, cut_at_ampersand=version != "1.0")
        if not search.like:
            return []
        facts: dict[str, object] = {
            "like": list(search.like),
            "exact": search.exact,
            "equal": list(whole_addresses(hosts, aliases, urls)),
            "encoded": search.encoded,
        }
        questions: list[_Question] = []
        last: list[_Question] = []  # these go through whole tables, and take no time from the others
        for place in searches(version):
            if place.what in PRIVATE and not private_messages:
                continue
            columns = self._searchable(asked, place)
            whole = tuple(column for column in columns if column.equal) if facts["equal"] else ()
            inside = [column for column in columns if not column.whole]
            plain = tuple(column for column in inside if not column.trigram)
            by_trigram = tuple(column for column in inside if column.trigram)
            questions += [_Question(place, whole, equal=True), _Question(place, plain, whole), _Question(place, by_trigram)]
            last += [_Question(place, tuple(inside), encoded=True)] if search.encoded else []
        found: dict[tuple[UseKind, int, str, str], Use] = {}
        split: list[_Question] = []  # to be asked again column by column, after everything else had its turn
        for several in (True, False):
            for question in [each for each in (*questions, *last) if each.columns] if several else split:
                for row in self._put(asked, question, facts, split if several else None):
                    use = Use(_kind(question.place.what), **_known(row))
                    found[use.kind, use.id, use.field, use.address] = use
        return list(found.values())

    def _searchable(self, asked: _Asked, place: Search) -> list[Column]:
        """The columns that there are and that may be read; others are noted."""
        searchable = []
        for column in place.columns:
            name = f"{place.table}.{column.name}"
            if name not in asked.present:
                asked.missed(NOT_THERE, name)
            elif name not in asked.readable:
                asked.missed(NOT_GRANTED, name, owners=column.owners)
            else:
                searchable.append(column)
        return searchable

    def _put(self, asked: _Asked, question: _Question, facts: Mapping[str, object], split: list[_Question] | None) -> list[Row]:
        """The rows. What gives no answer is put into `split`, a question for each column, or noted where it cannot be split."""
        if time.monotonic() > asked.until or asked.connection.closed:
            why = question.about("the connection was lost before it was asked" if asked.connection.closed else NO_TIME)
            for column in question.columns:
                asked.missed(why, question.name(column), owners=column.owners)
            return []
        try:
            return self._ask(asked, question.statement(asked.readable), facts)
        except (Refused, Unreached) as error:
            if split is not None and len(question.columns) > 1:
                split += [replace(question, columns=(column,)) for column in question.columns]
                return []
            for column in question.columns:
                anyway = column in question.whole
                why = f"asked for whole addresses only: {error}" if anyway else question.about(str(error))
                asked.missed(why, question.name(column), owners=column.owners and not anyway)
            return []

    # -- other pictures that show the same ----------------------------------------------------------------------------

    def _copies(
        self,
        asked: _Asked,
        named: Mapping[str, str],
        hosts: Sequence[str],
        uses: Sequence[Use],
        uploads: Sequence[Upload],
        aliases: Sequence[str],
    ) -> list[Copy]:
        """From a post's picture to the preview that Lemmy made of it, and back, each once."""
        shown = {
            name: {use.id for use in uses if use.kind is UseKind.POST and use.field == name} for name in ("url", "thumbnail_url")
        }
        posts = sorted(shown["url"] | shown["thumbnail_url"])
        if not posts:
            return []
        found: dict[str, Copy] = {}
        chosen = {upload.alias for upload in uploads if upload.person is not None and upload.thumbnail_of is None}
        for row in self._may(asked, named, "pairs", {"posts": posts}):
            post, url, shrunk = int(row["id"]), str(row["url"] or ""), str(row["thumbnail_url"] or "")
            picture, preview = own_alias(url, hosts), own_alias(shrunk, hosts)
            if post in shown["url"] and preview and preview not in aliases:
                found[preview] = Copy(shrunk, preview, post, preview=True)
            if post in shown["thumbnail_url"] and preview in aliases and picture not in aliases and _picture(picture, url):
                found.setdefault(picture or url, Copy(url, picture, post, preview=False, by_lemmy=preview not in chosen))
        if "previews" in named:
            for row in self._may(asked, named, "previews", {"posts": sorted(shown["url"])}):
                if row["alias"] not in aliases:
                    made = Copy(
                        f"https://{hosts[0] if hosts else ''}/api/v4/image/{row['alias']}",
                        str(row["alias"]),
                        int(row["post"]),
                        preview=True,
                    )
                    found.setdefault(made.alias, made)
        previews = [copy.alias for copy in found.values() if copy.preview]
        for row in self._may(asked, named, "uploads", {"aliases": previews}) if previews else []:
            if row["person"] is not None and row["thumbnail_of"] is None:  # somebody's upload, chosen as a preview
                found[row["alias"]] = replace(found[row["alias"]], by_lemmy=False)
        return list(found.values())

    # -- one question -------------------------------------------------------------------------------------------------

    def _columns(self, connection: "Connection[Row]") -> tuple[str, frozenset[str], frozenset[str]]:
        """Which Lemmy made this database, told by its columns; all of them, and those that the role may read. Raises: Refused."""
        rows = self._must(connection, COLUMNS, {})
        present = frozenset(row["name"] for row in rows)
        readable = frozenset(row["name"] for row in rows if row["readable"])
        if {"local_image.person_id", "person.ap_id"} <= present:
            return "1.0", present, readable
        if {"local_image.local_user_id", "person.actor_id"} <= present:
            return "0.19", present, readable
        if {"image_upload.local_user_id", "person.actor_id"} <= present:
            return OLDEST, present, readable
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

    def _ask(self, asked: _Asked, statement: str, facts: Mapping[str, object]) -> list[Row]:
        rows = self._must(asked.connection, statement, facts)
        asked.answered += 1
        return rows

    def _need(
        self, asked: _Asked, named: Mapping[str, str], title: str, facts: Mapping[str, object], *, owners: bool = False
    ) -> list[Row]:
        """As `_may`, but a role that may not ask this may ask nothing. Raises: Refused."""
        try:
            return self._ask(asked, named[title], facts)
        except Refused:
            raise
        except Unreached as error:
            asked.missed(str(error), title, owners=owners)
            return []

    def _may(self, asked: _Asked, named: Mapping[str, str], title: str, facts: Mapping[str, object]) -> list[Row]:
        try:
            return self._ask(asked, named[title], facts)
        except (Refused, Unreached) as error:
            asked.missed(str(error), title.replace("_", " "))
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
SELECT c.relname || '.' || a.attname AS name, pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT') AS readable
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
WHERE pg_catalog.pg_table_is_visible(c.oid) AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v')
    AND c.relnamespace <> 'pg_catalog'::pg_catalog.regnamespace
"""
READABLE = """
SELECT c.relname || '.' || a.attname AS name
FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
WHERE pg_catalog.pg_table_is_visible(c.oid) AND a.attnum > 0 AND NOT a.attisdropped
    AND c.relname || '.' || a.attname = ANY (%(names)s)
    AND pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT')
ORDER BY 1
"""


def _kind(what: str) -> UseKind:
    """Of a search: the word before what tells several of a kind apart."""
    for kind in (UseKind.REPORT, UseKind.MODLOG, UseKind.RECORD, UseKind.SITE):
        if what.startswith(kind.value):
            return kind
    return UseKind(what)


def _picture(alias: str, url: str) -> bool:
    """Whether the address of a post is a picture's and not a page's, as far as it can be told."""
    return bool(alias or PICTURE.search(urlsplit(url).path))


def _limit(why: str, whats: Sequence[str]) -> str:
    return f"{', '.join(whats)}: {why}" if why != NOT_THERE else f"{why} {', '.join(whats)}"


def _known(row: Row) -> Row:
    """Without what is NULL: the values' own defaults say that nothing is known."""
    return {name: value for name, value in row.items() if value is not None}


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
