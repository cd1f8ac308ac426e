"""An index that finds the looks at which the dear analyser was asked, among millions of findings; no data is moved here."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index over the marks of the cascade."""
    marks = sa.text("concept IN ('further', 'sampled')")
    op.create_index("findings_of_cascade", "findings", ["look", "concept"], sqlite_where=marks, postgresql_where=marks)


def downgrade() -> None:
    """Take the index away."""
    op.drop_index("findings_of_cascade", "findings")
