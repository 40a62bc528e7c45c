"""Rows as lines: whatever a store holds comes back equal, on either database."""
from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import JSON, BigInteger, Boolean, Double, Integer, String, Text, select

from machikoba.store import dump
from machikoba.store.database import Database
from machikoba.store.migrations import upgrade
from machikoba.store.tables import BundleEntry, Business, Mark, Moment, Table, new_id

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60) | st.sampled_from(
    ["", "神戸市の旅館\n\r\t", "👨‍👩‍👧 は゛", "\u2028\x0b\x85", "𠮷野家", '"\\{}', "x" * 20_000])
NUMBER = st.integers(-(1 << 31), (1 << 31) - 1)
JSON_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=10)
VALUES = {
    JSON: st.dictionaries(JSON_TEXT, st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | JSON_TEXT,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(JSON_TEXT, inner, max_size=3), max_leaves=6), max_size=3),
    Moment: st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)).map(lambda moment: moment.replace(tzinfo=UTC)),
    Boolean: st.booleans(), Double: st.floats(allow_nan=False), Integer: NUMBER, BigInteger: st.integers(1, 1 << 62),
    Text: TEXT}
KINDS = (JSON, Moment, Boolean, Double, BigInteger, Integer, Text, String)


@pytest.fixture
def other(other_url):
    made = Database(other_url)
    upgrade(made)
    yield made
    made.close()


def value(draw, column, made):
    if column.foreign_keys:
        parent = next(iter(column.foreign_keys)).column
        return draw(st.sampled_from([row[parent.name] for row in made[parent.table.name]]))
    if column.primary_key and isinstance(column.type, BigInteger):
        return len(made["audit"]) + 1
    if column.primary_key or column.unique or column.name in ("name", "hash"):
        return new_id()[:getattr(column.type, "length", None)]
    if column.nullable and draw(st.booleans()):
        return None
    kind = next(kind for kind in KINDS if isinstance(column.type, kind))
    return draw(TEXT)[:column.type.length] if kind is String else draw(VALUES[kind])


@st.composite
def stores(draw):
    """Rows of every table, by table; those that others refer to first."""
    made = {}
    for table in Table.metadata.sorted_tables:
        made[table.name] = []
        parents = [next(iter(column.foreign_keys)).column.table.name for column in table.columns if column.foreign_keys]
        for _ in range(draw(st.integers(0, 3)) if all(made[parent] for parent in parents) else 0):
            row = {column.name: value(draw, column, made) for column in table.columns}
            keys = [column.name for column in table.primary_key]
            if all([row[key] for key in keys] != [other[key] for key in keys] for other in made[table.name]):
                made[table.name].append(row)
    return made


@settings(max_examples=12, suppress_health_check=list(HealthCheck))
@given(rows=stores())
def test_whatever_is_stored_comes_back_equal(database, other, rows):
    with database.writing() as session:
        for table in Table.metadata.sorted_tables:
            if rows[table.name]:
                session.execute(table.insert(), rows[table.name])
        connection = session.connection()
        lines = {table.name: [dump.line(row) for row in dump.read(connection, table)] for table in dump.tables(connection)}
        contents = dump.contents(connection)
        session.rollback()
    assert {name: len(found) for name, found in lines.items()} == {name: len(found) for name, found in rows.items()}
    with other.writing() as session:
        connection = session.connection()
        for table in dump.tables(connection):
            dump.write(connection, table, map(dump.parsed, lines[table.name]))
        assert dump.contents(connection) == contents
        for table in Table.metadata.sorted_tables:
            order = [*table.primary_key]
            found = session.execute(select(table).order_by(*order)).mappings().all()
            expected = sorted(rows[table.name], key=lambda row, order=order: [row[column.name] for column in order])
            assert [dict(row) for row in found] == expected
        session.rollback()


def test_a_zero_with_a_minus_is_a_zero(database, other, business):
    digests = set()
    for one, number in ((database, -0.0), (other, 0.0)):
        with one.writing() as session:
            session.merge(Business(id=business, name="a", created_at=datetime(2026, 1, 1, tzinfo=UTC)))
            session.flush()
            session.add(BundleEntry(id="b" * 32, business_id=business, name="a", folder="a"))
            session.flush()
            session.add(Mark(id="m" * 32, bundle_id="b" * 32, business_id=business, at=datetime(2026, 1, 1, tzinfo=UTC),
                             what="audit", audited=1, wrong=0, upper=1.0, lower=number))
            session.flush()
            digests.add(dump.contents(session.connection())["marks"]["digest"])
            session.rollback()
    assert len(digests) == 1


def test_rows_of_another_table_are_refused(database):
    with database.writing() as session:
        table = next(table for table in dump.tables(session.connection()) if table.name == "businesses")
        with pytest.raises(ValueError, match="businesses"):
            dump.write(session.connection(), table, [{"id": "a"}])


def test_every_column_is_of_a_kind_that_a_line_can_hold():
    for table in Table.metadata.sorted_tables:
        for column in table.columns:
            assert isinstance(column.type, KINDS), column
