"""What an earlier tool said about names; moves no data."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, and the triggers that keep facts from being edited."""
    op.create_table(
        "legacy",
        sa.Column("store", sa.Text, nullable=False),
        sa.Column("key", sa.LargeBinary, nullable=False),
        sa.Column("tool", sa.Text, nullable=False),
        sa.Column("suspected", sa.SmallInteger),  # NULL: it met the name and never looked
        sa.Column("at", sa.Text, nullable=False),  # as that tool wrote it, "" where it did not
        sa.Column("run", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("store", "key", "tool"),
    )
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER legacy_no_{verb.lower()} BEFORE {verb} ON legacy "
                "BEGIN SELECT RAISE(ABORT, 'legacy is a record of facts: nothing in it is changed or deleted'); END"
            )


def downgrade() -> None:
    """Take the table away; with it go its triggers."""
    op.drop_table("legacy")
