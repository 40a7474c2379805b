"""The first tables: runs, measurements, their samples and gates, attempts, quarantines."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "runs",
        sa.Column("number", NUMBER, nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("began", TIME, nullable=False),
        sa.Column("ended", TIME),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("revision", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("user", sa.Text(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_runs")),
        sa.UniqueConstraint("id", name=op.f("uq_runs_id")),
    )
    op.create_table(
        "attempts",
        sa.Column("number", NUMBER, nullable=False),
        sa.Column("run", NUMBER, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("recorded", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["run"], ["runs.number"], name=op.f("fk_attempts_run"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_attempts")),
    )
    op.create_index(op.f("ix_attempts_run"), "attempts", ["run"], unique=False)
    op.create_index(op.f("ix_attempts_unit"), "attempts", ["unit"], unique=False)
    op.create_table(
        "measurements",
        sa.Column("number", NUMBER, nullable=False),
        sa.Column("run", NUMBER, nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("pool", sa.Text(), nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("recorded", TIME, nullable=False),
        sa.Column("recipe", sa.Text()),
        sa.Column("variant", sa.Text()),
        sa.Column("scheme", sa.Text()),
        sa.Column("backend", sa.Text()),
        sa.Column("target", sa.Text()),
        sa.Column("device", sa.Text()),
        sa.Column("accuracy", sa.Double()),
        sa.Column("accuracy_float", sa.Double()),
        sa.Column("accuracy_drop", sa.Double()),
        sa.Column("sqnr_db", sa.Double()),
        sa.Column("min_cosine", sa.Double()),
        sa.Column("instructions_per_inference", sa.BigInteger()),
        sa.Column("latency_p50_ms", sa.Double()),
        sa.Column("latency_p90_ms", sa.Double()),
        sa.Column("latency_p99_ms", sa.Double()),
        sa.Column("latency_count", sa.Integer()),
        sa.Column("model_bytes", sa.BigInteger()),
        sa.Column("bundle_bytes", sa.BigInteger()),
        sa.Column("peak_rss_bytes", sa.BigInteger()),
        sa.Column("bundle_sha256", sa.Text()),
        sa.Column("evaluation_sha256", sa.Text()),
        sa.Column("medians_ns", sa.JSON(), nullable=False),
        sa.Column("row", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run"], ["runs.number"], name=op.f("fk_measurements_run"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_measurements")),
        sa.UniqueConstraint("run", "key", name=op.f("uq_measurements_run_key")),
    )
    op.create_index(
        op.f("ix_measurements_key_pool_run"), "measurements", ["key", "pool", "run"], unique=False
    )
    op.create_table(
        "quarantines",
        sa.Column("number", NUMBER, nullable=False),
        sa.Column("run", NUMBER, nullable=False),
        sa.Column("unit", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("recorded", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["run"], ["runs.number"], name=op.f("fk_quarantines_run"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_quarantines")),
        sa.UniqueConstraint("run", "unit", name=op.f("uq_quarantines_run_unit")),
    )
    op.create_table(
        "gates",
        sa.Column("measurement", NUMBER, nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("notes", sa.JSON(), nullable=False),
        sa.Column("baseline_run", sa.Text()),
        sa.Column("first_bad_run", sa.Text()),
        sa.Column("new_level", sa.Boolean(), nullable=False),
        sa.Column("by", sa.Text()),
        sa.Column("recorded", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["measurement"],
            ["measurements.number"],
            name=op.f("fk_gates_measurement"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("measurement", name=op.f("pk_gates")),
    )
    op.create_table(
        "samples",
        sa.Column("measurement", NUMBER, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["measurement"],
            ["measurements.number"],
            name=op.f("fk_samples_measurement"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("measurement", name=op.f("pk_samples")),
    )
