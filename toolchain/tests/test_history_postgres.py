"""The history in a real PostgreSQL."""

from __future__ import annotations

import threading
import time

import pytest
from sqlalchemy import text

from toolchain.errors import InfraError, UserError
from toolchain.history import History, database
from toolchain.tests import histories, postgres

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        postgres.programs() is None, reason="PostgreSQL is not installed: apt install postgresql"
    ),
]


@pytest.fixture(scope="module")
def server():
    with postgres.serving() as one:
        yield one


@pytest.fixture
def url(server):
    server.clear()
    return server.url


def test_it_keeps_what_it_is_given(url):
    histories.keeps_what_it_is_given(url)


def test_a_measurement_is_recorded_once(url):
    histories.records_once(url)


def test_many_processes_open_a_new_one(url):
    histories.opens_new_from_many_processes(url)


def test_migrations_make_the_tables_of_the_models(url):
    histories.migrations_make_the_tables_of_the_models(url)


def test_an_older_one_is_migrated_and_a_newer_one_refused(url, tmp_path, monkeypatch):
    histories.moves_to_a_newer_form_and_is_then_refused(url, tmp_path / "scripts", monkeypatch)


def test_tables_of_another_program_are_left_alone(url):
    with histories.connected(url) as connection:
        connection.execute(text("CREATE TABLE runs (x int)"))
    with pytest.raises(UserError, match="tables of another program: runs"):
        History(url)


def test_a_wrong_password_is_one_message_without_it(url):
    with pytest.raises(UserError, match="password authentication failed") as caught:
        History(url.replace(postgres.PASSWORD, "wrong-word"))
    assert "wrong-word" not in str(caught.value)


def test_no_such_database_is_one_message(url):
    with pytest.raises(UserError, match='"nothing" does not exist') as caught:
        History(url.replace("/postgres", "/nothing"))
    assert postgres.PASSWORD not in str(caught.value)


def test_a_restart_of_the_server_loses_nothing(server, url):
    with History(url) as history:
        history.begin("n1", {})
        assert histories.put(history, "n1", "a")
        server.stop()
        done: list[bool] = []
        late = threading.Thread(target=lambda: done.append(histories.put(history, "n1", "b")))
        late.start()
        time.sleep(1.5)
        server.start()
        late.join()
        assert done == [True]
        assert history.finished("n1") == {"a", "b"}


def test_a_server_that_stays_away_is_an_infra_error(server, url, monkeypatch):
    monkeypatch.setattr(database, "PAUSES", (0.01, 0.01))
    with History(url) as history:
        history.begin("n1", {})
        server.stop()
        try:
            with pytest.raises(InfraError, match="the database failed") as caught:
                histories.put(history, "n1", "a")
            assert postgres.PASSWORD not in str(caught.value)
        finally:
            server.start()
        assert history.finished("n1") == set()
