"""The beginning of a sorting as a job: on real messages, cut short, and with more than anybody can sort."""
from __future__ import annotations

import csv
import random

import numpy as np
import pytest

from machikoba.records.read import Example
from machikoba.sort import folder as place
from machikoba.sort import kept, lesson
from machikoba.sort.session import Session
from machikoba.store import jobs
from machikoba.store.tables import Job
from machikoba.worker import sort
from machikoba.worker.run import Worker
from tests.conftest import messages
from tests.worker.conftest import BUSINESS


def put(home, database, texts):
    """A job with a file of texts; its id."""
    folder = home / "businesses" / BUSINESS / "uploads"
    folder.mkdir(parents=True)
    with (folder / "1.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["本文"], *([text] for text in texts)])
    with database.writing() as session:
        return jobs.add(session, BUSINESS, "sort", {"upload": "1.csv", "filename": "受付.csv", "text": "本文"}, "person:1").id


def worked(home, database, id):
    Worker(home, database, "w").work(jobs.take(database, "w"))
    with database.reading() as session:
        return session.get(Job, id)


class Reader:
    read = 0

    def layers(self, texts):
        Reader.read += 1
        return {"last": np.random.default_rng(0).normal(size=(len(texts), 8))}

    def rest(self):
        pass


def test_what_an_earlier_start_finished_is_not_made_again(home, database, monkeypatch):
    monkeypatch.setattr(sort, "readers", lambda *_: [Reader()])
    Reader.read = 0
    id = put(home, database, [text for text, _kind in messages(40)])
    whole = kept.save_new
    monkeypatch.setattr(kept, "save_new", lambda *told: (whole(*told), 1 / 0))
    assert worked(home, database, id).error["code"] == "unforeseen"
    monkeypatch.setattr(kept, "save_new", whole)
    with database.writing() as session:
        job = session.get(Job, id)
        job.state, job.error, job.ended_at = "queued", None, None
    found = worked(home, database, id)
    assert (found.state, found.result) == ("done", {"messages": 40})
    assert Reader.read == 1
    assert not list((home / "businesses" / BUSINESS / "uploads").iterdir()), "the file goes when its messages are kept"


def test_a_sorting_that_was_stopped_leaves_nothing(home, database, monkeypatch):
    id = put(home, database, [text for text, _kind in messages(40)])

    def stopped_meanwhile(*_told):
        with database.writing() as session:
            jobs.cancel(session, session.get(Job, id), "person:1")
        return [Reader()]

    monkeypatch.setattr(sort, "readers", stopped_meanwhile)
    assert worked(home, database, id).state == "cancelled"
    assert not place.place(home, BUSINESS, id).exists()


def test_of_too_many_chance_picks_always_the_same(monkeypatch):
    monkeypatch.setattr(sort, "MOST_MESSAGES", 30)
    every = [Example(f"{i:016x}", str(i), str(i), None, None, i) for i in range(100)]
    some = sort.some_of(every)
    assert len(some) == 30
    assert [one.row for one in some] == sorted(one.row for one in some)
    assert {one.row for one in some} != set(range(30))
    shuffled = random.Random(0).sample(every, 100)
    assert {one.id for one in sort.some_of(shuffled)} == {one.id for one in some}
    assert sort.some_of(every[:30]) == every[:30]


@pytest.mark.integration
def test_a_quarter_of_an_hour_with_real_messages(home, database, data):
    with (data / "asdc_l1" / "train.csv").open(encoding="utf-8-sig", newline="") as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    rows = random.Random(0).sample(rows, 1_500)
    id = put(home, database, [text for text, _label in rows])
    assert worked(home, database, id).state == "done"
    folder = place.place(home, BUSINESS, id)
    session = Session(folder)
    assert len(session.proposals) >= 5
    assert len({one.name for one in session.proposals}) == len(session.proposals)
    from machikoba.records.privacy import mask

    kinds = {mask(text)[0]: label for text, label in rows}
    while len(session.answers.given) < 120:
        asked = session.question("a")
        kind = kinds[asked.text]
        label = next((label for label, name in session.answers.names.items() if name == kind), None)
        session.do("a", {"do": "new", "name": kind, "message": asked.message} if label is None else
                   {"do": "answer", "message": asked.message, "label": label})
        if session.lesson_is_due:
            lesson.give(folder)
            session.learnt()
    apprentice = session.apprentice
    left = [i for i, identity in enumerate(session.pool.ids) if identity not in session.answers.given]
    said = [session.answers.names[apprentice.labels[i]] for i in apprentice.scores[left].argmax(axis=1)]
    right = np.mean([name == kinds[session.pool.texts[i]] for name, i in zip(said, left, strict=True)])
    assert right > 0.5  # of 11 kinds; 0.6 in bench/sorting.py
    assert session.lesson.advice["outlook"]["right"]["n"] >= 20
