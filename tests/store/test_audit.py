"""The chain of what was done: it only grows, and a change anywhere is found."""
from __future__ import annotations

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError

from machikoba.store import audit
from machikoba.store.tables import Entry

FIELDS = ["actor", "action", "subject", "facts", "before", "hash", "business_id"]


def fill(database, business, n):
    with database.writing() as session:
        for i in range(n):
            audit.record(session, "person:1", "key.add", f"key:{i}", business, {"role": "staff", "days": i})


def unguard(session, database):
    """Takes the guard off, as somebody with the database's password could."""
    if database.sqlite:
        session.execute(text("DROP TRIGGER IF EXISTS audit_no_UPDATE"))
        session.execute(text("DROP TRIGGER IF EXISTS audit_no_DELETE"))
    else:
        session.execute(text("DROP TRIGGER IF EXISTS audit_only_grows ON audit"))


def test_a_whole_chain_is_whole(database, business):
    fill(database, business, 5)
    with database.reading() as session:
        assert audit.verify(session) is None
        assert [entry.number for entry in session.scalars(select(Entry).order_by(Entry.number))] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'x'", "DELETE FROM audit"])
def test_nothing_is_changed_by_mistake(database, business, statement):
    fill(database, business, 1)
    with pytest.raises(DBAPIError, match="only grows"), database.writing() as session:
        session.execute(text(statement))


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(1, 6), field=st.sampled_from(FIELDS), new=st.text("abc0", min_size=1, max_size=5))
def test_a_change_of_any_field_is_found(database, business, place, field, new):
    with database.writing() as session:
        unguard(session, database)
        session.execute(text("DELETE FROM audit"))
    fill(database, business, 6)
    with database.writing() as session:
        session.execute(update(Entry).where(Entry.number == place).values({field: new}))
    with database.reading() as session:
        found = audit.verify(session)
        assert found is not None
        assert found.number in (place, place + 1)


def test_a_missing_entry_and_a_cut_end_are_found(database, business):
    fill(database, business, 6)
    with database.reading() as session:
        last = session.get(Entry, 6)
        seen = (last.number, last.hash)
    with database.writing() as session:
        unguard(session, database)
        session.execute(text("DELETE FROM audit WHERE number = 6"))
    with database.reading() as session:
        assert audit.verify(session) is None, "by the chain alone a cut end cannot be seen"
        assert audit.verify(session, seen) == audit.Broken(6, "cut")
    with database.writing() as session:
        session.execute(text("DELETE FROM audit WHERE number = 3"))
    with database.reading() as session:
        assert audit.verify(session) == audit.Broken(3, "missing")


def test_writers_at_the_same_time_make_one_chain(database, business):
    threads = [threading.Thread(target=fill, args=(database, business, 5)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.reading() as session:
        assert audit.verify(session) is None
        assert len(session.scalars(select(Entry)).all()) == 20
