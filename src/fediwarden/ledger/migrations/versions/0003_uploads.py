"""What the gate answered and owes, under which names a platform serves an object, traces and what was done on platforms; moves no data."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

FACTS = ("names", "answers", "debts", "payments", "traces", "platform_deeds")


def upgrade() -> None:
    """Make the tables, and the triggers that keep facts from being edited."""
    op.create_table(
        "names",
        sa.Column("store", sa.Text, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("run", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("store", "key", "kind", "name"),
    )
    op.create_index("names_by_name", "names", ["name"])
    op.create_table(
        "answers",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run", sa.Integer, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("face", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text),  # NULL when the body never arrived whole
        sa.Column("original", sa.Text),  # SHA-256 of the bytes as uploaded, where they were seen and differ
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("claimed", sa.Text, nullable=False),
        sa.Column("passed", sa.SmallInteger, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("sealed", sa.SmallInteger),  # refused bytes: 1 in the vault, 0 could not be sealed; NULL where nothing is
        sa.Column("drill", sa.SmallInteger, nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("milliseconds", sa.Integer, nullable=False),
    )
    op.create_index("answers_by_time", "answers", ["at"])
    op.create_index("answers_by_sha256", "answers", ["sha256"])
    op.create_table(
        "debts",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("answer", sa.Integer, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("claimed", sa.Text, nullable=False),
        sa.Column("store", sa.Text, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
    )
    op.create_index("debts_by_sha256", "debts", ["sha256"])
    op.create_table(
        "payments",
        sa.Column("debt", sa.Integer, primary_key=True),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("look", sa.Integer),  # the look that paid it; NULL when it lapsed
        sa.Column("problem", sa.Text, nullable=False),  # why it lapsed
    )
    op.create_table(
        "traces",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run", sa.Integer, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("subject", sa.Text, nullable=False),  # what was asked about: a key, alias, hash or URL
        sa.Column("sha256", sa.Text),
        sa.Column("sealed", sa.Text),  # SHA-256 of the trace as it was sealed into the vault
        sa.Column("counts", sa.Text, nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
    )
    op.create_index("traces_by_sha256", "traces", ["sha256"])
    op.create_table(
        "platform_deeds",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("run", sa.Integer, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("platform", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text),
        sa.Column("act", sa.Text, nullable=False),
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
    )
    op.create_index("platform_deeds_by_sha256", "platform_deeds", ["sha256"])
    if op.get_bind().dialect.name == "sqlite":
        for table in FACTS:
            for verb in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                    f"BEGIN SELECT RAISE(ABORT, '{table} is a record of facts: nothing in it is changed or deleted'); END"
                )


def downgrade() -> None:
    """Take the tables away; with them go their triggers."""
    for table in reversed(FACTS):
        op.drop_table(table)
