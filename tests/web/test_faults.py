"""Every change that the API makes, with a fault at each of its places: what was accepted is there, what was not is not half."""
from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from machikoba.desk import bundles
from machikoba.errors import StorageError
from machikoba.store import audit, jobs, people
from machikoba.store.database import Database
from machikoba.store.tables import (
    BundleEntry,
    Business,
    Correction,
    Entry,
    Invitation,
    Job,
    Key,
    Membership,
    Person,
    SignIn,
    now,
)
from machikoba.web.access import csrf_of
from machikoba.web.app import create_app
from machikoba.web.serve import prepare
from machikoba.web.workshop import Workshop
from tests.faults import HOWS, Fault, dies
from tests.store.conftest import database, postgresql, url  # noqa: F401

PASSWORD = "yama-kawa-umi-sora"
ROWS = {"correction.add": Correction, "job.add": Job, "key.add": Key, "invitation.add": Invitation, "sign_in.add": SignIn,
        "bundle.add": BundleEntry, "business.add": Business}


class World:
    """A business with an owner who is signed in, and a bundle."""

    def __init__(self, home, url, made):  # noqa: F811
        self.home, self.url, self.database = home, url, Database(url)
        with self.database.writing() as session:
            self.business = people.add_business(session, "Inn", "console").id
            folder = home / "businesses" / self.business / "bundles" / "1.bundle"
            shutil.copytree(made.path, folder)
            bundles.add(session, self.business, "inquiries", folder, home, "console")
            owner = people.accept(session, self.invitation(session, "owner"), "a@example.jp", "Aoki", PASSWORD, "")
            self.cookie = people.open_sign_in(session, owner, "Firefox")
        self.uploads = home / "businesses" / self.business / "uploads"
        self._client = None

    def invitation(self, session, role="staff"):
        return people.invite(session, self.business, role, "console")

    def client(self):
        """A server of its own with a client of it, for one process."""
        if self._client is None:
            self.shop = Workshop.start(self.home, Database(self.url), local=False)
            self._client = TestClient(create_app(self.shop, ["testserver"]), raise_server_exceptions=False)
        return self._client

    def ask(self, method, path, key=None, signed=True, **options):
        """Whether it was accepted; nothing but a documented refusal may come instead."""
        client = self.client()
        client.cookies.clear()
        headers = {"Idempotency-Key": key} if key else {}
        if signed:
            headers |= {"X-Machikoba-CSRF": csrf_of(self.cookie), "Cookie": f"machikoba={self.cookie}"}
        answer = client.request(method, path, headers=headers, **options)
        assert answer.status_code < 400 or answer.status_code in (503, 507), (method, path, answer.status_code, answer.text)
        return answer.status_code < 400

    def number(self, kind, *conditions):
        with self.database.reading() as session:
            return session.scalar(select(func.count()).select_from(kind).where(*conditions))

    def job(self, tag):
        """A task that waits, with its file."""
        self.uploads.mkdir(parents=True, exist_ok=True)
        (self.uploads / f"{tag}.csv").write_text("text,label\n")
        with self.database.writing() as session:
            return jobs.add(session, self.business, "tune", {"name": tag, "upload": f"{tag}.csv"}, "person:1").id

    def person(self, tag):
        """Somebody on the staff."""
        with self.database.writing() as session:
            return people.accept(session, self.invitation(session), f"{tag}@example.jp", tag, PASSWORD, "").id

    def key(self, tag):
        with self.database.writing() as session:
            return people.add_key(session, self.business, tag, "staff", "console")[0].id

    def sound(self, uncertain):
        """The chain is whole, each row has its entry and each entry its row, each task its file, each name its folder."""
        with self.database.reading() as session:
            assert audit.verify(session) is None
            for action, kind in ROWS.items():
                told = session.scalars(select(Entry.subject).where(Entry.action == action)).all()
                assert sorted(one.partition(":")[2] for one in told) == sorted(session.scalars(select(kind.id))), action
            needed = {job.options["upload"] for job in session.scalars(select(Job)) if job.state in jobs.OPEN}
            for entry in session.scalars(select(BundleEntry).where(BundleEntry.removed_at.is_(None))):
                assert bundles.folder_of(entry, self.home).is_dir()
        there = {path.name for path in self.uploads.glob("*")} | {path.name for path in self.uploads.glob(".*")}
        assert needed <= there, "a task without its file"
        assert uncertain or needed == there, "a file without its task"


@dataclass(frozen=True)
class Change:
    """prepare: what must be there before, given a tag; act: asks, True where that was accepted; number: of its effects.

    again: may be sent again until it is accepted, and has its effect once all the same.
    """

    act: Callable[[World, str, Any], bool]
    number: Callable[[World, str, Any], int]
    prepare: Callable[[World, str], Any] = lambda _world, _tag: None
    again: bool = True


def correct(world, tag, key=None):
    return world.ask("POST", "/v1/bundles/inquiries/corrections", key, json={"text": tag, "label": "parking"})


def corrections(world, tag, _given):
    return world.number(Correction, Correction.text == tag)


def invited(world, _tag):
    with world.database.writing() as session:
        return world.invitation(session)


def accounts(world, tag, _token):
    """The account, its place in the business and its sign-in: all of them or none."""
    with world.database.reading() as session:
        person = session.scalars(select(Person.id).where(Person.mail == f"{tag}@example.jp")).first()
        parts = [len(session.scalars(select(kind).where(kind.person_id == person)).all()) for kind in (Membership, SignIn)]
    assert parts == ([0, 0] if person is None else [1, 1])
    return parts[0]


def ended(world, kind, which):
    with world.database.reading() as session:
        return int(session.get(kind, which).ended_at is not None)


CHANGES = {
    "correct": Change(lambda world, tag, _: correct(world, tag, tag), corrections),
    "correct without a key": Change(lambda world, tag, _: correct(world, tag), corrections, again=False),
    "tune": Change(
        lambda world, tag, _: world.ask("POST", "/v1/tasks", tag, data={"name": tag},
                                        files={"file": ("a.csv", f"text,label\n{tag},b\n".encode(), "text/csv")}),
        lambda world, tag, _: sum(job["name"] == tag for job in options(world))),
    "cancel": Change(
        lambda world, _tag, job: world.ask("POST", f"/v1/tasks/{job}/cancel"),
        lambda world, _tag, job: world.number(Entry, Entry.action == "job.cancel", Entry.subject == f"job:{job}"),
        lambda world, tag: world.job(tag)),
    "make a key": Change(lambda world, tag, _: world.ask("POST", "/v1/keys", json={"name": tag}),
                         lambda world, tag, _: world.number(Key, Key.name == tag), again=False),
    "end a key": Change(lambda world, _tag, key: world.ask("DELETE", f"/v1/keys/{key}"),
                        lambda world, _tag, key: ended(world, Key, key), lambda world, tag: world.key(tag)),
    "invite": Change(lambda world, _tag, _: world.ask("POST", "/v1/invitations", json={"role": "viewer"}),
                     lambda world, _tag, before: world.number(Invitation) - before,
                     lambda world, _tag: world.number(Invitation), again=False),
    "open an account": Change(
        lambda world, tag, token: world.ask("POST", "/v1/accounts", signed=False, json={
            "token": token, "mail": f"{tag}@example.jp", "name": tag, "password": PASSWORD}), accounts, invited, again=False),
    "sign in": Change(
        lambda world, tag, _: world.ask("POST", "/v1/sign-ins", signed=False, json={
            "mail": f"{tag}@example.jp", "password": PASSWORD}),
        lambda world, _tag, person: world.number(SignIn, SignIn.person_id == person),
        lambda world, tag: world.person(tag), again=False),
    "change a role": Change(
        lambda world, _tag, person: world.ask("PUT", f"/v1/people/{person}", json={"role": "viewer"}),
        lambda world, _tag, person: world.number(Membership, Membership.person_id == person, Membership.role == "viewer"),
        lambda world, tag: world.person(tag)),
}


def options(world):
    with world.database.reading() as session:
        return [job.options for job in session.scalars(select(Job))]


@pytest.fixture
def world(home, url, database, made, monkeypatch):  # noqa: F811
    found = World(home, url, made)
    monkeypatch.setattr("machikoba.web.tasks.MOST_WAITING", 1_000)
    monkeypatch.setattr("machikoba.web.access.now", lambda: now() - timedelta(days=1))  # that a sign-in was used is not noted
    yield found
    found.database.close()
    if found._client is not None:
        found.shop.close()


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("what", CHANGES)
def test_a_fault_at_every_place_of_a_change(world, what, how):
    change = CHANGES[what]
    for at in itertools.count(1):
        tag = f"t{at}"
        given = change.prepare(world, tag)
        if how == "killed":
            world.database.close()
            accepted = went_off = None
            went_off = dies(lambda tag=tag, given=given: change.act(world, tag, given) or pytest.fail("refused"), at)
            accepted = not went_off
        else:
            with Fault(at, how) as fault:
                accepted = change.act(world, tag, given)
            went_off = fault.went_off
        number = change.number(world, tag, given)
        assert number == 1 if accepted else number in ((0,) if how == "full" else (0, 1)), f"place {at}"
        world.sound(uncertain=how != "full")
        if not went_off:
            assert accepted
            break
        if change.again:
            again(world, change, tag, given, how)
            assert change.number(world, tag, given) == 1, f"place {at}, sent again"
            world.sound(uncertain=how != "full")
        elif not number:
            again(world, change, tag, given, how)
    assert at > 3


def again(world, change, tag, given, how):
    if how == "killed":
        world.database.close()
        assert not dies(lambda: change.act(world, tag, given) or pytest.fail("refused"), 0)
    else:
        assert change.act(world, tag, given)


@pytest.mark.parametrize("how", HOWS)
def test_a_fault_at_every_place_of_a_start(tmp_path, made, how, monkeypatch):
    """From no store at all to a server that could answer: tables, the first business, its token, its bundles named."""
    monkeypatch.setattr(people, "_hasher", lambda: pytest.fail("nobody has a password yet"))
    for at in itertools.count(1):
        home = tmp_path / f"home{at}"
        shutil.copytree(made.path, home / "bundles" / "inquiries.bundle")
        where = f"sqlite:///{home}/machikoba.sqlite"

        def begin(home=home, where=where):
            store = Database(where)
            try:
                prepare(home, store, [], "127.0.0.1", [], "Inn")
            finally:
                store.close()

        if how == "killed":
            went_off = dies(begin, at)
        else:
            with Fault(at, how) as fault, suppress(StorageError):
                begin()
            went_off = fault.went_off
        begin()
        store = Database(where)
        with store.reading() as session:
            assert audit.verify(session) is None
            assert [one.name for one in session.scalars(select(Business))] == ["Inn"]
            assert [(one.name, one.removed_at) for one in session.scalars(select(BundleEntry))] == [("inquiries", None)]
            valid = session.scalars(select(Invitation).where(Invitation.expires_at > now())).all()
            assert len(valid) == 1, "of the tokens for the first owner only the newest is good"
        store.close()
        if not went_off:
            break
    assert at > 20
