"""Transactions, migrations and what is said of a database that does not answer."""
from __future__ import annotations

import itertools
import threading
from contextlib import suppress

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import insert, inspect, select, text
from sqlalchemy.exc import IntegrityError

from machikoba.errors import OptionError, StorageError
from machikoba.store import migrations
from machikoba.store.database import Database, default_url
from machikoba.store.tables import Business, Table
from tests.faults import Fault


def test_the_tables_of_the_migrations_are_those_of_the_code(database):
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Table.metadata) == []


def test_every_older_version_comes_to_the_newest(url, tmp_path):
    (tmp_path / "store").mkdir()
    for step in ScriptDirectory.from_config(migrations.config()).walk_revisions():
        database = Database(url)
        with database.engine.begin() as connection:
            for table in reversed(Table.metadata.sorted_tables):
                connection.execute(text(f"DROP TABLE IF EXISTS {table.name}"))
            connection.execute(text("DROP TABLE IF EXISTS alembic_version"))
            if not database.sqlite:
                connection.execute(text("DROP FUNCTION IF EXISTS audit_only_grows CASCADE"))
        migrations.upgrade(database, step.revision)
        migrations.upgrade(database)
        migrations.upgrade(database)
        with database.engine.connect() as connection:
            assert migrations.current(connection) == migrations.newest()
        database.close()


def test_processes_that_start_together_make_the_tables_once(url):
    failures = []

    def start():
        database = Database(url)
        try:
            migrations.upgrade(database)
        except Exception as error:
            failures.append(error)
        finally:
            database.close()

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_fault_at_every_place_of_an_upgrade_leaves_no_half_store(url):
    database = Database(url)
    for at in itertools.count(1):
        with Fault(at) as fault, suppress(StorageError):
            migrations.upgrade(database)
        if not fault.went_off:
            break
        with database.engine.connect() as connection:
            assert inspect(connection).get_table_names() == []
    assert at > 15
    with database.engine.connect() as connection:
        assert migrations.current(connection) == migrations.newest()
        assert compare_metadata(MigrationContext.configure(connection), Table.metadata) == []
    database.close()


def test_a_store_of_a_newer_machikoba_is_left_alone(database):
    with database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(StorageError) as caught:
        migrations.upgrade(database)
    assert caught.value.code == "store_newer"


def test_a_failed_block_leaves_nothing(database):
    with pytest.raises(RuntimeError), database.writing() as session:  # noqa: PT012
        session.add(Business(name="A"))
        session.flush()
        raise RuntimeError
    with database.reading() as session:
        assert session.scalars(select(Business)).all() == []


def test_writers_that_read_first_lose_no_update(database, business):
    def more():
        for _ in range(10):
            with database.writing() as session:
                row = session.get(Business, business, with_for_update=True)
                row.retention_days = (row.retention_days or 0) + 1

    threads = [threading.Thread(target=more) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as session:
        assert session.get(Business, business).retention_days == 40


def test_moments_come_back_in_utc(database, business):
    with database.reading() as session:
        assert session.get(Business, business).created_at.utcoffset().total_seconds() == 0


def test_a_lost_server_is_told_and_the_next_request_finds_it_again(database, business):
    if database.sqlite:
        pytest.skip("there is no server")
    with pytest.raises(StorageError) as caught, database.writing() as session:  # noqa: PT012
        own = session.scalar(text("SELECT pg_backend_pid()"))
        with database.engine.connect() as other:
            other.execute(text(f"SELECT pg_terminate_backend({own})"))
        session.scalars(select(Business)).all()
    assert caught.value.code == "store_unreachable"
    with database.reading() as session:
        assert session.get(Business, business)


def test_nobody_there(tmp_path):
    database = Database("postgresql://nobody@127.0.0.1:9/none")
    with pytest.raises(StorageError) as caught, database.reading() as session:
        session.scalars(select(Business)).all()
    assert caught.value.code == "store_unreachable"
    assert "127.0.0.1" in caught.value.message


def test_a_full_disk(tmp_path):
    database = Database(default_url(tmp_path))
    migrations.upgrade(database)
    with pytest.raises(StorageError) as caught, database.writing() as session:  # noqa: PT012
        pages = session.scalar(text("PRAGMA page_count"))
        session.execute(text(f"PRAGMA max_page_count={pages}"))
        session.add_all(Business(name="x" * 10_000) for _ in range(100))
    assert caught.value.code == "store_full"


@pytest.mark.parametrize("url", ["mysql://a/b", "nonsense", "sqlite://", "oracle://x"])
def test_a_url_that_cannot_be_used(url):
    with pytest.raises(OptionError) as caught:
        Database(url)
    assert caught.value.code == "database_url"


def test_a_password_is_in_no_message():
    database = Database("postgresql://nobody:geheim@127.0.0.1:9/none")
    with pytest.raises(StorageError) as caught, database.reading() as session:
        session.scalars(select(Business)).all()
    assert "geheim" not in str(caught.value.to_dict())


def test_no_text_that_was_to_be_stored_is_in_an_error(database, business):
    with pytest.raises(IntegrityError) as caught, database.writing() as session:
        session.execute(insert(Business).values(id=business, name="090-1234-5678"))
    assert "090" not in str(caught.value)
