"""The first tables: facts that are only ever added, and the index of what each store holds; no data is moved here."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

FACTS = ("meta", "runs", "run_ends", "looks", "findings", "decisions", "deeds")


def upgrade() -> None:
    """Make tables, indexes, the view behind `entries`, and the triggers that keep facts from being edited."""
    op.create_table("meta", sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False))
    op.create_table(
        "runs",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("command", sa.Text, nullable=False),
        sa.Column("arguments", sa.Text, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
    )
    op.create_table(
        "run_ends",
        sa.Column("run", sa.Integer, primary_key=True),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("counts", sa.Text, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
    )
    op.create_table(
        "objects",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("store", sa.Text, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("stamp", sa.Text, nullable=False),
        sa.Column("modified", sa.Text),
        sa.Column("listed", sa.Integer, nullable=False),  # the last run that met it
        sa.Column("gone_at", sa.Text),  # set also while hidden
        sa.Column("hidden_by", sa.Integer),  # the deed event that hid these bytes
        sa.Column("sha256", sa.Text),  # as last looked at
        sa.Column("engine", sa.Text),  # of the settled look
        sa.Column("look", sa.Integer),  # the settled look that holds the evidence
        sa.Column("attempt", sa.Integer),  # the last look, settled or not
        sa.Column("fresh", sa.SmallInteger, nullable=False),  # 1: the settled look is about the bytes under this stamp
        sa.Column("replaced", sa.SmallInteger, nullable=False),  # 1: a deed met other bytes, not looked at yet
        sa.Column("lacking", sa.Text),  # why it counts as not scanned; NULL when it does not
        sa.Column("decision", sa.Integer),
        sa.Column("step", sa.Text),  # of that decision
        sa.Column("done", sa.Integer),  # the decision whose deed is done
        sa.Column("deed", sa.Integer),  # the last deed event about these bytes
        sa.UniqueConstraint("store", "key", name="one_object_a_key"),
    )
    op.create_index("objects_by_sha256", "objects", ["sha256"])
    quarantine = sa.text("step = 'quarantine'")
    op.create_index("objects_flagged", "objects", ["decision"], sqlite_where=quarantine, postgresql_where=quarantine)
    op.create_table(
        "looks",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run", sa.Integer, nullable=False),
        sa.Column("object", sa.Integer, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("standing", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("stamp", sa.Text, nullable=False),
        sa.Column("modified", sa.Text),
        sa.Column("sha256", sa.Text),
        sa.Column("engine", sa.Text),
        sa.Column("same_as", sa.Integer),  # the look whose evidence this one repeats
        sa.Column("kind", sa.Text),
        sa.Column("notes", sa.Text),
        sa.Column("unopened", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("milliseconds", sa.Integer, nullable=False),
    )
    op.create_index("looks_by_object", "looks", ["object"])
    settled = sa.text("same_as IS NULL AND standing IN ('seen', 'broken') AND sha256 IS NOT NULL AND engine IS NOT NULL")
    op.create_index(
        "one_evidence", "looks", ["sha256", "engine", "standing"], unique=True, sqlite_where=settled, postgresql_where=settled
    )
    op.create_table(
        "findings",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("look", sa.Integer, nullable=False),
        sa.Column("concept", sa.Text, nullable=False),
        sa.Column("score", sa.Double),  # NULL is "not a number"
        sa.Column("analyser", sa.Text, nullable=False),
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("frame", sa.Integer, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("measures", sa.Text, nullable=False),
    )
    op.create_index("findings_by_look", "findings", ["look"])
    op.create_table(
        "decisions",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run", sa.Integer, nullable=False),
        sa.Column("object", sa.Integer),  # NULL when a person spoke about bytes that no object holds
        sa.Column("sha256", sa.Text),
        sa.Column("look", sa.Integer),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("because", sa.Text, nullable=False),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("rank", sa.Integer, nullable=False),
        sa.Column("decided_by", sa.Text, nullable=False),
        sa.Column("drill", sa.SmallInteger, nullable=False),
    )
    op.create_index("decisions_by_object", "decisions", ["object"])
    person = sa.text("decided_by <> 'policy'")
    op.create_index("verdicts", "decisions", ["sha256"], sqlite_where=person, postgresql_where=person)
    op.create_table(
        "deeds",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("previous", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("act", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("store", sa.Text, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("decision", sa.Integer, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("drill", sa.SmallInteger, nullable=False),
        sa.Column("place", sa.Text),
        sa.Column("problem", sa.Text, nullable=False),
    )
    op.create_index("deeds_by_object", "deeds", ["store", "key", "sha256", "seq"])
    op.create_index("deeds_by_time", "deeds", ["at"])
    op.execute("""
        CREATE VIEW entries AS
        SELECT o.id, o.store, o.key, o.size, o.stamp, o.modified, o.sha256, o.engine, o.gone_at, o.hidden_by, o.lacking,
            o.look, o.attempt, o.decision, o.step,
            e.at AS look_at, e.standing AS look_standing, e.sha256 AS look_sha256, e.engine AS look_engine,
            e.kind AS look_kind, e.notes AS look_notes, e.unopened AS look_unopened, e.reason AS look_reason,
            e.problem AS look_problem, e.milliseconds AS look_milliseconds,
            a.at AS attempt_at, a.standing AS attempt_standing, a.sha256 AS attempt_sha256, a.engine AS attempt_engine,
            a.same_as AS attempt_same_as, a.reason AS attempt_reason, a.problem AS attempt_problem,
            a.milliseconds AS attempt_milliseconds,
            d.rule, d.because, d.policy, d.rank, d.decided_by, d.drill,
            w.act AS deed_act, w.state AS deed_state
        FROM objects o
        LEFT JOIN looks e ON e.id = o.look
        LEFT JOIN looks a ON a.id = o.attempt
        LEFT JOIN decisions d ON d.id = o.decision
        LEFT JOIN deeds w ON w.seq = o.deed
    """)
    if op.get_bind().dialect.name == "sqlite":
        for table in FACTS:
            for verb in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, '{table} is a record of facts: nothing in it is changed or deleted'); END"
                )


def downgrade() -> None:
    """Take everything away again; with the tables go their triggers."""
    op.execute("DROP VIEW entries")
    for table in ("deeds", "decisions", "findings", "looks", "objects", "run_ends", "runs", "meta"):
        op.drop_table(table)
