"""Records with hardly any different messages: every fold must have something to learn from, or say so."""
from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import event, given, settings
from hypothesis import strategies as st

import machikoba
from machikoba.errors import DataError
from tests.conftest import write_csv

one_kind = st.lists(st.tuples(st.sampled_from(["駐車場", "朝食", "貸切風呂", "x"]), st.integers(0, 60)), min_size=12, max_size=40)


def outcome(kinds: list[list[tuple[str, int]]]) -> str:
    """What `tune` ends in: the code of its error, or the bundle's status."""
    rows = [(word + chr(0x4E00 + 40 * i) * 3, f"kind {k}") for k, kind in enumerate(kinds) for word, i in kind]
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = machikoba.tune(write_csv(Path(folder) / "a.csv", rows), Path(folder) / "a.bundle", rungs=("words",))
        except DataError as error:
            return error.code
        return str(made.summary["status"])


@given(st.lists(one_kind, min_size=2, max_size=3))
@settings(max_examples=30)
def test_records_that_are_much_alike_end_in_a_bundle_or_a_clear_error(kinds):
    found = outcome(kinds)
    event(found)
    assert found in ("too_alike", "apprentice", "qualified")


def test_copies_of_two_messages_are_no_records():
    assert outcome([[("朝食", 1)] * 30, [("駐車場", 2)] * 30]) == "too_alike"
