"""The history in an SQLite file: what it keeps, several processes, migrations, broken files."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

import pytest

from toolchain.errors import UserError
from toolchain.history import History, addresses, gate
from toolchain.history.__main__ import main
from toolchain.schema import Checks
from toolchain.tests import histories


@pytest.fixture
def url(tmp_path) -> str:
    return f"sqlite:///{tmp_path}/folder/history.sqlite"


def test_it_keeps_what_it_is_given(url):
    histories.keeps_what_it_is_given(url)


def test_a_measurement_is_recorded_once(url):
    histories.records_once(url)


@pytest.mark.slow
def test_many_processes_open_a_new_one(url):
    histories.opens_new_from_many_processes(url)


def test_migrations_make_the_tables_of_the_models(url):
    histories.migrations_make_the_tables_of_the_models(url)


def test_an_older_one_is_migrated_and_a_newer_one_refused(url, tmp_path, monkeypatch):
    histories.moves_to_a_newer_form_and_is_then_refused(url, tmp_path / "scripts", monkeypatch)


def test_it_is_written_ahead_with_foreign_keys(url, tmp_path):
    with History(url) as history:
        history.begin("n1", {})
        with pytest.raises(UserError, match="there is no run 'n2'"):
            histories.put(history, "n2", "a")
    with sqlite3.connect(tmp_path / "folder/history.sqlite") as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.execute("PRAGMA foreign_keys = ON")
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(
                "INSERT INTO quarantines (run, unit, reason, recorded) VALUES (99, 'u', '', '')"
            )
    connection.close()


def test_a_resumed_run_goes_on_with_the_same_sources_only(url):
    with History(url) as history:
        history.begin("n1", {"revision": "a"})
        histories.put(history, "n1", "k")
        history.end("n1", "stopped")
        history.begin("n1", {"revision": "a"})
        assert (history.run("n1").state, history.run("n1").ended) == ("running", None)
        assert history.finished("n1") == {"k"}
        with pytest.raises(UserError, match="began with the sources a; these are b"):
            history.begin("n1", {"revision": "b"})


def test_runs_and_series_are_in_the_order_of_their_beginning(url):
    with History(url) as history:
        for run in ("z", "a", "m"):
            history.begin(run, {})
            histories.put(history, run, "k")
        assert [one.id for one in history.runs()] == ["z", "a", "m"]
        assert [one.id for one in history.runs(2)] == ["a", "m"]
        assert [one.run for one in history.series("k", "p")] == ["z", "a", "m"]
        assert [one.run for one in history.series("k", "p", until="a")] == ["z", "a"]
        assert [one.run for one in history.series("k", "p", limit=1)] == ["m"]
        assert history.series("k", "other") == []


RECORDS = """
import sys
from toolchain.history import History
from toolchain.tests.histories import put
with History(sys.argv[1]) as history:
    history.begin("n1", {})
    for k in range(int(sys.argv[2]), 10**6):
        put(history, "n1", f"k{k}")
        print(k, flush=True)
"""


@pytest.mark.slow
def test_a_killed_writer_loses_nothing_and_leaves_nothing_half(url):
    """What was said to be recorded is there, with its samples."""
    History(url).close()
    chance, told = random.Random(1), 0
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", RECORDS, url, str(told)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(chance.uniform(0.0, 0.3))
            os.kill(process.pid, signal.SIGKILL)
            told = max([told, *(int(line) + 1 for line in process.stdout.read().split())])
        with History(url) as history:
            done = history.finished("n1")
            assert {f"k{k}" for k in range(told)} <= done
            assert all(history.samples("n1", key) == histories.SAMPLES for key in done)
    assert told > 6


def test_a_damaged_file_is_one_message(tmp_path):
    file = tmp_path / "history.sqlite"
    file.write_bytes(b"no database at all" * 1000)
    with pytest.raises(UserError, match="damaged, or no SQLite database"):
        History(str(file))


def test_a_file_that_is_damaged_inside_is_one_message(tmp_path):
    file = tmp_path / "history.sqlite"
    with History(str(file)) as history:
        history.begin("n1", {})
        for k in range(50):
            histories.put(history, "n1", f"k{k}")
    content = bytearray(file.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    file.write_bytes(content)
    with pytest.raises(UserError, match="damaged"), History(str(file)) as history:
        history.rows("n1")


@pytest.mark.parametrize("place", ["/proc/history.sqlite", "/dev/null/x/history.sqlite"])
def test_a_folder_that_cannot_be_written_is_one_message(place):
    with pytest.raises(UserError, match=r"cannot be (written|made)"):
        History(place)


def test_a_file_of_another_program_is_refused(tmp_path):
    file = tmp_path / "history.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE runs (x)")
    connection.close()
    with pytest.raises(UserError, match="tables of another program: runs"):
        History(str(file))


def test_reading_makes_no_history(tmp_path):
    with pytest.raises(UserError, match="there is no history yet"):
        History(str(tmp_path / "history.sqlite"), create=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "is empty"),
        ("mysql://me:word@host/x", "cannot be kept by 'mysql'"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("postgresql://me:word@host:port/x", "not a URL"),
    ],
)
def test_a_wrong_address_is_one_message_without_its_password(url, said):
    with pytest.raises(UserError, match=said) as caught:
        History(url)
    assert "word" not in str(caught.value).replace("password", "")


def test_passwords_are_never_shown():
    url = addresses.parse("postgresql://me:word@host/x?sslpassword=word2&application_name=a")
    assert addresses.shown(url) == "postgresql+psycopg://me:***@host/x?application_name=a"
    assert "word" not in addresses.hidden("history=postgresql://me:word@host/x target=arm64")


def test_a_run_keeps_no_password(url):
    with History(url) as history:
        history.begin("n1", {"options": "history=postgresql://me:word@host/x"})
        assert history.run("n1").options == "history=postgresql://me:***@host/x"


def test_an_unreachable_server_is_one_message_without_its_password():
    with pytest.raises(UserError, match="cannot be used") as caught:
        History("postgresql://me:word@127.0.0.1:1/x")
    assert "word" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


def test_the_command_line(url, capsys):
    with History(url) as history:
        for run in ("n1", "n2"):
            history.begin(run, {"revision": "abc"})
            histories.put(history, run, "k")
    main([f"--history={url}", "migrate"])
    main([f"--history={url}", "runs"])
    main([f"--history={url}", "show", "n1"])
    main([f"--history={url}", "series", "k"])
    main([f"--history={url}", "gate", "n2"])
    said = capsys.readouterr().out
    assert "nothing to do" in said
    assert said.count("abc") == 2
    assert "5,000,000,000" in said


def test_to_look_at_the_gate_changes_nothing(url, capsys):
    """A nightly judged by the tolerance of the recipe, which the command line does not know."""
    with History(url) as history:
        for run, size in (("n1", 1000), ("n2", 1050)):
            history.begin(run, {})
            row = histories.ROW | {"model_bytes": size, "reasons": []}
            history.record(run, "k", row, {}, pool="p", unit="u", attempt=1)
            judged = gate.judge(history, run, "k", tolerances=Checks(max_cost_increase=0.1))
    assert judged.verdict == "pass"
    main([f"--history={url}", "gate", "n2"])
    assert "regression" not in capsys.readouterr().out
    with History(url) as history:
        (kept,) = history.rows("n2")
        assert kept.gate == judged


@pytest.mark.parametrize("words", [["show", "n3"], ["series", "kk"], ["gate", "n3"]])
def test_the_command_line_knows_what_there_is(url, words, capsys):
    with History(url) as history:
        history.begin("n1", {})
        histories.put(history, "n1", "k")
    with pytest.raises(SystemExit) as caught:
        main([f"--history={url}", *words])
    assert caught.value.code == 2
    assert "did you mean" in (said := capsys.readouterr().err) or "known:" in said


def test_nothing_of_it_imports_torch():
    code = (
        "import sys; from toolchain.history import __main__, power; print('torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said.stdout.strip() == "False", said.stderr
