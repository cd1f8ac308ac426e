"""Reads the named statements of this package's `.sql` files once; holds no SQL of its own but how a search is put together."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

FILES = {"0.19": "019", "1.0": "1"}  # versions of Lemmy whose database is known
BEFORE_LOCAL_IMAGE = ("local_image", "image_upload")  # the table's name until 0.19.3
OLDEST = "0.19.3"
BY_TRIGRAM = "SELECT x.id FROM unnest(%(like)s::text[]) AS wanted (pattern) JOIN {table} x ON x.{column} ILIKE wanted.pattern"
# the expression is long, and PostgreSQL would try it first on every text: it does not know what it costs
SHOWS = "CASE WHEN {first} THEN shown.text ~ %(exact)s ELSE false END"
LATER = "later"  # grants of columns that not every release of a version has
_OPTIONAL = re.compile(r"\{(\w+)\.(\w+)\|(\w+)\}")


@dataclass(frozen=True, slots=True)
class Column:
    """One column that may show a picture."""

    name: str
    equal: bool = False  # an index answers whole addresses
    whole: bool = False  # and nothing else is asked of it
    trigram: bool = False  # an index answers LIKE
    owners: bool = False  # further owners of the picture may stand behind it


@dataclass(frozen=True, slots=True)
class Search:
    """One table, searched in some of its columns at a time."""

    what: str  # "post", "report of a comment"
    table: str
    columns: tuple[Column, ...]
    _template: str
    _alias: str  # of the table in the statement

    def inside(self, columns: Sequence[Column], readable: frozenset[str]) -> str:
        """The statement that searches these columns for `like` and `exact`; `readable` are the columns of the version."""
        plain = [f"{self._alias}.{each.name} ILIKE ANY (%(like)s)" for each in columns if not each.trigram]
        # such an index does not answer LIKE ANY, nor an OR of several questions: one pattern after another, and all in one IN
        joined = [BY_TRIGRAM.format(table=self.table, column=each.name) for each in columns if each.trigram]
        by_trigram = [f"{self._alias}.id IN ({' UNION ALL '.join(joined)})"] if joined else []
        return self._statement(columns, " OR ".join([*plain, *by_trigram]), readable)

    def encoded(self, columns: Sequence[Column], readable: frozenset[str]) -> str:
        """The statement that goes through these columns for `exact` where signs are encoded, which no index answers."""
        found = " OR ".join(f"{self._alias}.{each.name} ~ %(encoded)s" for each in columns)
        return self._statement(columns, found, readable, first="shown.text ~ %(encoded)s")

    def equal(self, columns: Sequence[Column], readable: frozenset[str]) -> str:
        """The statement that asks these columns for the whole addresses `equal`."""
        return self._statement(columns, " OR ".join(f"{self._alias}.{each.name} = ANY (%(equal)s)" for each in columns), readable)

    def _statement(
        self, columns: Sequence[Column], found: str, readable: frozenset[str], first: str = "shown.text ILIKE ANY (%(like)s)"
    ) -> str:
        shown = ", ".join(f"('{each.name}', {self._alias}.{each.name}::text)" for each in columns)

        def chosen(match: re.Match[str]) -> str:
            return f"{match[1]}.{match[2]}" if f"{self.table}.{match[2]}" in readable else match[3]

        template = _OPTIONAL.sub(chosen, self._template)
        return template.replace("{columns}", shown).replace("{found}", found).replace("{shows}", SHOWS.format(first=first))


@cache
def statements(kind: str, version: str) -> Mapping[str, str]:
    """Every statement of "trace" or "grants" for a version (0.19.3 stands for 0.19.0 to 0.19.3), by name."""
    return {
        title: "\n".join(line for line in body.splitlines() if not line.startswith("--")).strip()
        for title, body in _parts(kind, version).items()
        if not (kind == "trace" and title.startswith("uses "))
    }


@cache
def searches(version: str) -> tuple[Search, ...]:
    """Everything that is searched for what shows a picture."""
    return tuple(
        _search(title.removeprefix("uses "), body)
        for title, body in _parts("trace", version).items()
        if title.startswith("uses ")
    )


def _search(what: str, body: str) -> Search:
    lines = body.splitlines()
    marks = dict(line[3:].split(": ", 1) for line in lines if re.match(r"-- (columns|owners): ", line))
    template = "\n".join(line for line in lines if not line.startswith("--")).strip()
    source = re.search(r"^FROM (\w+) (\w+)", template, re.MULTILINE)
    assert source is not None  # noqa: S101 - a search reads a table
    owners = marks.get("owners", "").split()
    columns = tuple(
        Column(name.rstrip("=~"), "=" in name, name.endswith("=="), "~" in name, name.rstrip("=~") in owners)
        for name in marks["columns"].split()
    )
    return Search(what, source[1], columns, template, source[2])


def _parts(kind: str, version: str) -> Mapping[str, str]:
    name = FILES["0.19" if version == OLDEST else version]
    source = files("fediwarden.platforms.lemmy").joinpath("sql", f"{kind}_{name}.sql").read_text(encoding="utf-8")
    if version == OLDEST:
        source = source.replace(*BEFORE_LOCAL_IMAGE)
    found: dict[str, str] = {}
    for part in source.split("\n-- name: ")[1:]:
        title, _, body = part.partition("\n")
        found[title.strip()] = body
    return found


def grants(version: str, role: str, *, private_messages: bool) -> str:
    """What gives a role the right to be asked for a trace, and no other right."""
    quoted = '"' + role.replace('"', '""') + '"'
    named = statements("grants", version)
    parts = [named["grants"]]
    if private_messages:
        parts.append(named["private messages"])
    if version != OLDEST and LATER in named:
        parts += [
            "-- Not every release has these; where one is missing, psql says so and goes on, and that is no harm.",
            named[LATER],
        ]
        if private_messages:
            parts.append(named[f"{LATER} private messages"])
    return "\n".join(parts) % {"role": quoted} + "\n"
