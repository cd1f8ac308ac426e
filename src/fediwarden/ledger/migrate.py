"""Brings the tables of a ledger to this program's version, and refuses a newer one; the tables themselves are in `migrations`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from fediwarden.errors import Misconfigured
from fediwarden.ledger.database import writing
from fediwarden.ledger.queries import queries

if TYPE_CHECKING:
    from alembic.runtime.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import Connection, Engine

HEAD = "0005"  # the newest file in migrations/versions; known here so that opening a current ledger needs no Alembic
VERSION_TABLE = "ledger_version"
BASE = "base"

ALL_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"
VERSION = f"SELECT version_num FROM {VERSION_TABLE}"  # noqa: S608 - a constant


def current(engine: "Engine", path: str) -> str | None:
    """The version of the tables; None for an empty file. Raises: Misconfigured for a file of somebody else."""
    with engine.connect() as connection:
        return _version(connection, path)


def _version(connection: "Connection", path: str) -> str | None:
    tables = {str(row[0]) for row in connection.exec_driver_sql(ALL_TABLES)}
    if VERSION_TABLE in tables:
        found = connection.exec_driver_sql(VERSION).scalar()
        if found is not None:
            return str(found)
    elif tables:
        raise Misconfigured(f"{path} is a database of another program", hint="check the setting `ledger`")
    return None


def bring_up_to_date(engine: "Engine", path: str) -> None:
    """Run the missing migrations in one transaction; programs that open the ledger at once take turns.

    Raises: Misconfigured when the ledger was written by a newer program, or is none.
    """
    if current(engine, path) == HEAD:
        return
    with writing(engine).begin() as connection:
        found = _version(connection, path)
        if found == HEAD:
            return
        _refuse_newer(found, path)
        migrate(connection, HEAD)
        if connection.execute(queries()["installation"]).first() is None:
            connection.execute(queries()["add_installation"], {"value": token_hex(16)})


def check(engine: "Engine", path: str) -> None:
    """For a ledger that is only read: Misconfigured unless its tables are of this program's version."""
    found = current(engine, path)
    if found != HEAD:
        _refuse_newer(found, path)
        raise Misconfigured(
            f"the ledger {path} was last written by an older version of this program",
            hint="run a command that writes to it once, such as `fediwarden scan`",
        )


def before(version: str | None) -> str | None:
    """The version of the tables before one that this program knows; None where there is none."""
    known = {revision.revision: revision.down_revision for revision in scripts().walk_revisions()}
    found = known.get(version or "")
    return found if isinstance(found, str) else None


def migrate(connection: "Connection", target: str) -> None:
    """Run migrations up or down to `target` (a revision or BASE) on a connection inside a transaction."""
    from alembic.runtime.migration import MigrationContext

    script = scripts()
    found = (
        None
        if target == BASE
        else MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()
    )
    below = () if found is None else tuple(revision.revision for revision in script.iterate_revisions(found, BASE))
    upwards = target != BASE and target not in below

    def steps(revision: Any, _: "MigrationContext") -> Sequence[Any]:  # Alembic's own types are not exported
        down = script._downgrade_revs
        return list(script._upgrade_revs(target, revision)) if upwards else list(down(target, revision))

    _run(MigrationContext, connection, script, steps)


def _run(context: Any, connection: "Connection", script: "ScriptDirectory", steps: Callable[..., Sequence[Any]]) -> None:
    from alembic.operations import Operations

    configured = context.configure(
        connection, opts={"script": script, "fn": steps, "version_table": VERSION_TABLE, "render_as_batch": True}
    )
    with Operations.context(configured):
        configured.run_migrations()


def scripts() -> "ScriptDirectory":
    """The migrations that came with this program."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(Path(__file__).with_name("migrations")))


def _refuse_newer(found: str | None, path: str) -> None:
    if found is not None and found not in {revision.revision for revision in scripts().walk_revisions()}:
        raise Misconfigured(
            f"the ledger {path} was written by a newer version of this program (tables {found}, this one knows {HEAD})",
            hint="update this program; it will not touch the ledger",
        )
