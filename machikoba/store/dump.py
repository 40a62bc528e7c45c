"""All rows of a store as lines of JSON, and back: the same lines from SQLite and from PostgreSQL.

The tables are those that the database has, not those of the code, so that a store of any version can be read and filled.
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from sqlalchemy import JSON, Connection, DateTime, MetaData, Text, bindparam, cast, func, select
from sqlalchemy import Table as Rows
from sqlalchemy.types import TypeEngine

AT_ONCE = 500
VERSION = "alembic_version"  # told apart: it is made, not filled
Row = dict[str, Any]


@dataclass
class Content:
    """What a table holds: how many rows, and the sum of the SHA-256 of their lines, the same in whatever order they come."""

    rows: int = 0
    total: int = 0

    def add(self, line: bytes) -> None:
        self.rows += 1
        self.total = (self.total + int.from_bytes(hashlib.sha256(line).digest(), "big")) % (1 << 256)

    def to_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "digest": f"{self.total:064x}"}


def tables(connection: Connection) -> list[Rows]:
    """The store's tables, those first that others refer to."""
    found = MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name != VERSION]


def count(connection: Connection) -> int:
    """How many rows there are in all."""
    return sum(connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables(connection))


def read(connection: Connection, table: Rows) -> Iterator[Row]:
    """The rows of a table, a few in memory at a time."""
    # JSON as it was written: another program would order and round it its own way.
    columns = [cast(column, Text).label(column.name) if isinstance(column.type, JSON) else column for column in table.columns]
    wanted = select(*columns).order_by(*table.primary_key.columns).execution_options(yield_per=AT_ONCE)
    for row in connection.execute(wanted).mappings():
        yield {name: _out(value) for name, value in row.items()}


def write(connection: Connection, table: Rows, rows: Iterable[Row]) -> None:
    """Adds `rows`. Raises ValueError where they are not of this table."""
    names, sqlite = set(table.columns.keys()), connection.dialect.name == "sqlite"
    moments = {column.name for column in table.columns if isinstance(column.type, DateTime)}
    add = table.insert().values({column.name: _bound(column.name, column.type, sqlite) for column in table.columns})
    rows = iter(rows)
    while some := list(islice(rows, AT_ONCE)):
        for row in some:
            if set(row) != names:
                raise ValueError(table.name)
            for name in moments:
                row[name] = row[name] and _moment(row[name], sqlite)
        connection.execute(add, some)


def contents(connection: Connection) -> dict[str, dict[str, Any]]:
    """What every table holds."""
    found = {}
    for table in tables(connection):
        content = Content()
        for row in read(connection, table):
            content.add(line(row))
        found[table.name] = content.to_dict()
    return found


def line(row: Row) -> bytes:
    """A row as one line."""
    return json.dumps(row, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def parsed(line: bytes) -> Row:
    """A line as a row."""
    found: Row = json.loads(line)
    return found


def _out(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)).isoformat(timespec="microseconds")
    if isinstance(value, float):
        return value + 0.0  # SQLite keeps no minus before a zero
    return value


def _moment(text: str, sqlite: bool) -> datetime:
    moment = datetime.fromisoformat(text).astimezone(UTC)
    return moment.replace(tzinfo=None) if sqlite else moment


def _bound(name: str, kind: TypeEngine[Any], sqlite: bool) -> Any:
    if not isinstance(kind, JSON):
        return bindparam(name, type_=kind)
    plain = bindparam(name, type_=Text())
    return plain if sqlite else cast(plain, kind)
