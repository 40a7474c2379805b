"""What any history has to do, whatever database it is kept in: shared by its tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, text

from toolchain.history import History, addresses, migrate
from toolchain.history.models import Base

ROW = {
    "verdict": "pass", "reasons": ["a\0b \udc80"], "recipe": "digits", "variant": "int8",
    "accuracy": 0.99, "drop": 0.01, "instructions_per_inference": 5 * 10**9, "model_bytes": 1000,
    "latency_ms": {"p50": 1.0, "p90": 2.0, "p99": 3.0, "count": 4},
    "provenance": {"bundle_sha256": "b" * 64, "device": {"cpu": "x"}},
}  # fmt: skip
SAMPLES = {"wall_ns": [[1, 2, 3], [4, 5, 6]], "runner": {"threads": 1}}


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """The database itself, beside the history."""
    engine = create_engine(addresses.parse(url))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def put(history: History, run: str, key: str, attempt: int = 1) -> bool:
    return history.record(run, key, ROW, SAMPLES, pool="p", unit="u", attempt=attempt)


def keeps_what_it_is_given(url: str) -> None:
    with History(url) as history:
        history.begin("n1", {"revision": "abc", "host": "h", "user": "me", "options": "target=x"})
        assert put(history, "n1", "b")
        assert put(history, "n1", "a", attempt=2)
        history.record_attempt("n1", "a", "p", "u", 1, "infra-error", "no\0answer \udc80", 1.5)
        history.quarantine("n1", "u", "no answer")
        history.quarantine("n1", "u", "again")
        history.end("n1", "complete")
    with History(url, create=False) as history:
        run = history.run("n1")
        assert (run.state, run.revision, run.host, run.user) == ("complete", "abc", "h", "me")
        assert run.options == "target=x"
        assert run.ended is not None
        assert run.ended >= run.began
        assert history.finished("n1") == {"a", "b"}
        first, second = history.rows("n1")
        assert (first.key, first.attempt, first.pool, first.unit) == ("a", 2, "p", "u")
        assert second.row == ROW
        assert second.medians_ns == (2.0, 5.0)
        assert history.samples("n1", "b") == SAMPLES
        tried = history.attempts("n1")[0]
        assert (tried.status, tried.reason, tried.seconds) == (
            "infra-error",
            "no\ufffdanswer ?",
            1.5,
        )
        assert [one.reason for one in history.quarantined("n1")] == ["no answer"]


def records_once(url: str) -> None:
    """Several threads and the same key: one of them has recorded it."""
    with History(url) as history:
        history.begin("n1", {})
        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(lambda k: put(history, "n1", "key", attempt=k), range(16)))
        assert done.count(True) == 1
        assert len(history.rows("n1")) == 1
        assert history.rows("n1")[0].attempt == done.index(True)


OPENS = """
import sys, time
from toolchain.history import History
from toolchain.tests.histories import put
url, name, at = sys.argv[1:]
time.sleep(max(0, float(at) - time.time()))
with History(url) as history:
    history.begin("n1", {})
    history.begin(name, {})
    print(put(history, "n1", "shared"), all(put(history, name, f"k{n}") for n in range(20)))
"""


def opens_new_from_many_processes(url: str, count: int = 6) -> None:
    """All at once, on a database that is new: each succeeds, one recorded the shared key."""
    import time

    at = str(time.time() + 3)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", OPENS, url, f"p{k}", at], stdout=subprocess.PIPE, text=True
        )
        for k in range(count)
    ]
    said = [process.communicate(timeout=100)[0].split() for process in running]
    assert [process.returncode for process in running] == [0] * count
    assert sorted(first for first, _ in said) == ["False"] * (count - 1) + ["True"]
    assert {second for _, second in said} == {"True"}
    with History(url) as history:
        assert all(len(history.rows(f"p{k}")) == 20 for k in range(count))


def migrations_make_the_tables_of_the_models(url: str) -> None:
    History(url).close()
    with connected(url) as connection:
        options = {"version_table": migrate.VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def moves_to_a_newer_form_and_is_then_refused(url: str, scripts, monkeypatch) -> None:
    """scripts: a folder to copy the migrations to, with one more."""
    import shutil

    import pytest

    from toolchain.errors import UserError

    with History(url) as history:
        history.begin("n1", {})
        put(history, "n1", "a")
    shutil.copytree(migrate.SCRIPTS, scripts)
    (scripts / "versions/v9999_more.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\nrevision = '9999'\n"
        "down_revision = '0001'\nbranch_labels = None\ndepends_on = None\n"
        "def upgrade():\n    op.add_column('runs', sa.Column('more', sa.Text()))\n"
    )
    with monkeypatch.context() as newer:
        newer.setattr(migrate, "SCRIPTS", scripts)
        with History(url) as history:
            assert history.migrated
            assert history.finished("n1") == {"a"}
        with connected(url) as connection:
            connection.execute(text("SELECT more FROM runs"))
    with pytest.raises(UserError, match="a newer Slipway wrote it: its tables are of version 9999"):
        History(url)
