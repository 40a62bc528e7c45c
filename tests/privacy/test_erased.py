"""A text goes from a sealed bundle: at every moment the bundle can be opened, and what was cut short is finished."""
from __future__ import annotations

import errno
import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from machikoba.engine.explain import explain
from machikoba.engine.runtime import Engine, replay
from machikoba.errors import StorageError
from machikoba.pack import erased
from machikoba.pack.bundle import EXAMPLES, open_bundle


@pytest.fixture
def bundle(made, tmp_path):
    return open_bundle(shutil.copytree(made.path, tmp_path / "a.bundle"))


class Fault:
    """Fails the n-th fsync, rename or deletion."""

    def __init__(self, monkeypatch, at):
        self.at, self.count = at, 0
        for owner, name in ((os, "fsync"), (Path, "replace"), (Path, "unlink"), (Path, "rename")):
            monkeypatch.setattr(owner, name, self.failing(getattr(owner, name)))

    def failing(self, real):
        def call(*arguments, **options):
            self.count += 1
            if self.count == self.at:
                raise OSError(errno.EIO, "Input/output error")
            return real(*arguments, **options)
        return call


@pytest.mark.parametrize("change", [lambda one: erased.erase(one, lambda example: "駐車場" in example["text"]), erased.erase_all])
def test_the_bundle_can_be_opened_at_every_moment(made, tmp_path, monkeypatch, change):
    at = 1
    while True:
        path = shutil.copytree(made.path, tmp_path / f"{at}.bundle")
        with monkeypatch.context() as patched:
            fault = Fault(patched, at)
            with suppress(StorageError, OSError):
                change(open_bundle(path))
        assert open_bundle(path).facts["rung"] == "words"
        change(open_bundle(path))
        after = open_bundle(path)
        assert not any("駐車場" in example["text"] for example in after.examples())
        assert not list(path.glob(".*"))
        if fault.count < at:
            break
        at += 1
    assert at > 6


def test_what_is_emptied_keeps_its_line(bundle):
    before = bundle.examples()
    gone = erased.erase(bundle, lambda example: example["id"] == before[3]["id"])
    after = open_bundle(bundle.path).examples()
    assert (gone, len(after)) == (1, len(before))
    assert after[3] == {"id": "", "set": before[3]["set"], "group": "", "text": "", "label": ""}
    assert [*after[:3], *after[4:]] == [*before[:3], *before[4:]]
    assert erased.unfinished(bundle.path)
    assert len(erased.left(bundle)) == len(before) - 1


def test_a_bundle_that_waits_still_answers_and_explains_without_the_text(bundle, home):
    service = Engine(home).load(bundle.path)
    told = explain(service, "無料の駐車場")
    erased.erase(bundle, lambda example: example["id"] == told.neighbours[0].id)
    again = explain(Engine(home).load(bundle.path), "無料の駐車場")
    assert again.prediction == told.prediction
    assert [one.id for one in again.neighbours[:2]] == [one.id for one in told.neighbours[1:]]
    assert all(one.text for one in again.neighbours)


def test_a_proof_that_lost_a_row_does_not_stand_elsewhere(bundle, home):
    proved = bundle.proof()["certify_rows"]
    erased.erase(bundle, lambda example: example["id"] == proved[0]["id"])
    assert replay(Engine(home).load(bundle.path)) == [proved[0]["id"]]


def test_without_any_messages_it_answers_and_explains_by_words_only(bundle, home):
    n = len(bundle.examples())
    assert erased.erase_all(bundle) == n
    assert not (bundle.path / EXAMPLES).exists()
    told = explain(Engine(home).load(bundle.path), "無料の駐車場")
    assert (told.prediction.label, told.neighbours) == ("parking", [])
    assert erased.erase_all(open_bundle(bundle.path)) == 0
    assert not erased.unfinished(bundle.path)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_change_of_places_that_was_cut_short(bundle, tmp_path, steps):
    """It dies before the first rename, between the two, and before the old one is deleted."""
    new = shutil.copytree(bundle.path, erased.beside(bundle.path))
    (new / "NOTICE").write_text("new")
    if steps == 1:
        erased.take_away(bundle.path)
    elif steps == 2:
        erased.swap(bundle.path)
    erased.settle_all(tmp_path)
    assert ((bundle.path / "NOTICE").read_text() == "new") == (steps > 0)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".gone")] == []
    if steps == 0:
        erased.swap(bundle.path)
        erased.settle(bundle.path)
        assert (bundle.path / "NOTICE").read_text() == "new"
