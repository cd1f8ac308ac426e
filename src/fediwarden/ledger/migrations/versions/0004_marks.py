"""What a watching process remembers between its lives: how far it has come in each store, which notices went out; moves no data."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table. It is no record of facts: each line stands for its newest value only."""
    op.create_table(
        "marks",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("at", sa.Text, nullable=False),
    )


def downgrade() -> None:
    """Take the table away; the next watching begins with a complete listing."""
    op.drop_table("marks")
