"""The tables of the history.

    runs ──┬── measurements ──┬── samples     raw, compressed; apart, so that queries stay light
           │                  └── gates       what the regression gate said
           ├── attempts       every try, so that flaky units show
           └── quarantines    units that a run did without

What is asked for by queries is a column; the complete row of `summary.json` stands beside it.
A change here needs a new file in `migrations/versions`; a test compares the two.
"""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# SQLite numbers rows by itself only where the column is an INTEGER.
NUMBER = BigInteger().with_variant(Integer(), "sqlite")


class Utc(TypeDecorator[datetime.datetime]):
    """A time with its zone, always UTC; SQLite keeps none, so it is given back here."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self,
        value: datetime.datetime | None,
        dialect: Dialect,  # noqa: ARG002
    ) -> datetime.datetime | None:
        return None if value is None else value.astimezone(datetime.UTC)

    def process_result_value(
        self,
        value: datetime.datetime | None,
        dialect: Dialect,  # noqa: ARG002
    ) -> datetime.datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            return value.replace(tzinfo=datetime.UTC)
        return value.astimezone(datetime.UTC)


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 (SQLAlchemy reads it from the class)
        str: Text(),
        datetime.datetime: Utc(),
        dict[str, Any]: JSON(),
        list[str]: JSON(),
        list[float]: JSON(),
        bytes: LargeBinary(),
    }


class Run(Base):
    """number: in the order of their beginning, whatever the clock said."""

    __tablename__ = "runs"

    number: Mapped[int] = mapped_column(NUMBER, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    began: Mapped[datetime.datetime]
    ended: Mapped[datetime.datetime | None]
    state: Mapped[str]
    revision: Mapped[str]
    host: Mapped[str]
    user: Mapped[str]
    facts: Mapped[dict[str, Any]]


class Measurement(Base):
    """A row of `summary.json`. Bytes, milliseconds, and user-space instructions per inference."""

    __tablename__ = "measurements"
    __table_args__ = (
        UniqueConstraint("run", "key"),
        Index(None, "key", "pool", "run"),
    )

    number: Mapped[int] = mapped_column(NUMBER, primary_key=True)
    run: Mapped[int] = mapped_column(NUMBER, ForeignKey("runs.number", ondelete="CASCADE"))
    key: Mapped[str]
    pool: Mapped[str]
    unit: Mapped[str]
    attempt: Mapped[int]
    verdict: Mapped[str]
    reasons: Mapped[list[str]]
    recorded: Mapped[datetime.datetime]

    recipe: Mapped[str | None]
    variant: Mapped[str | None]
    scheme: Mapped[str | None]
    backend: Mapped[str | None]
    target: Mapped[str | None]
    device: Mapped[str | None]
    accuracy: Mapped[float | None]
    accuracy_float: Mapped[float | None]
    accuracy_drop: Mapped[float | None]
    sqnr_db: Mapped[float | None]
    min_cosine: Mapped[float | None]
    instructions_per_inference: Mapped[int | None] = mapped_column(BigInteger)
    latency_p50_ms: Mapped[float | None]
    latency_p90_ms: Mapped[float | None]
    latency_p99_ms: Mapped[float | None]
    latency_count: Mapped[int | None]
    model_bytes: Mapped[int | None] = mapped_column(BigInteger)
    bundle_bytes: Mapped[int | None] = mapped_column(BigInteger)
    peak_rss_bytes: Mapped[int | None] = mapped_column(BigInteger)
    bundle_sha256: Mapped[str | None]
    evaluation_sha256: Mapped[str | None]
    medians_ns: Mapped[list[float]]
    row: Mapped[dict[str, Any]]


class Samples(Base):
    """data: JSON, compressed by zlib."""

    __tablename__ = "samples"

    measurement: Mapped[int] = mapped_column(
        NUMBER, ForeignKey("measurements.number", ondelete="CASCADE"), primary_key=True
    )
    data: Mapped[bytes]


class Gate(Base):
    """See `values.Judged`. by: who accepted a regression."""

    __tablename__ = "gates"

    measurement: Mapped[int] = mapped_column(
        NUMBER, ForeignKey("measurements.number", ondelete="CASCADE"), primary_key=True
    )
    verdict: Mapped[str]
    reasons: Mapped[list[str]]
    notes: Mapped[list[str]]
    baseline_run: Mapped[str | None]
    first_bad_run: Mapped[str | None]
    new_level: Mapped[bool]
    by: Mapped[str | None]
    recorded: Mapped[datetime.datetime]


class Attempt(Base):
    __tablename__ = "attempts"

    number: Mapped[int] = mapped_column(NUMBER, primary_key=True)
    run: Mapped[int] = mapped_column(
        NUMBER, ForeignKey("runs.number", ondelete="CASCADE"), index=True
    )
    key: Mapped[str]
    pool: Mapped[str]
    unit: Mapped[str] = mapped_column(index=True)
    attempt: Mapped[int]
    status: Mapped[str]
    reason: Mapped[str]
    seconds: Mapped[float]
    recorded: Mapped[datetime.datetime]


class Quarantine(Base):
    __tablename__ = "quarantines"
    __table_args__ = (UniqueConstraint("run", "unit"),)

    number: Mapped[int] = mapped_column(NUMBER, primary_key=True)
    run: Mapped[int] = mapped_column(NUMBER, ForeignKey("runs.number", ondelete="CASCADE"))
    unit: Mapped[str]
    reason: Mapped[str]
    recorded: Mapped[datetime.datetime]
