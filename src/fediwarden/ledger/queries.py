"""Reads the named queries of `queries.sql` once; holds no SQL itself."""

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import TextClause

LISTS = ("keys", "digests", "looks", "only", "objects", "stores")  # parameters that stand for a list of values


@cache
def queries() -> "Mapping[str, TextClause]":
    """Every query by its name, ready for a connection."""
    from sqlalchemy import bindparam, text

    source = files("fediwarden.ledger").joinpath("queries.sql").read_text(encoding="utf-8")
    found: dict[str, TextClause] = {}
    for part in source.split("\n-- name: ")[1:]:
        name, _, body = part.partition("\n")
        statement = "\n".join(line for line in body.splitlines() if not line.startswith("--")).strip().rstrip(";")
        lists = [name for name in LISTS if re.search(rf"IN :{name}\b", statement)]
        found[name.strip()] = text(statement).bindparams(*(bindparam(name, expanding=True) for name in lists))
    return found
