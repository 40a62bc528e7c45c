"""Two businesses on one server: whatever either does, no word of the other ever comes to it."""
from __future__ import annotations

import io
import itertools
import json
import logging
import os
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sqlalchemy import select
from starlette.testclient import TestClient

import machikoba
from machikoba.desk import bundles
from machikoba.store import jobs, people
from machikoba.store.database import Database, default_url
from machikoba.store.migrations import upgrade
from machikoba.store.tables import BundleEntry, Correction, Invitation, Item, Job, Key
from machikoba.web.app import create_app
from machikoba.web.workshop import Workshop
from machikoba.worker.run import Worker
from tests.conftest import messages, write_csv

PASSWORD = "yama-kawa-umi-sora"
NAMES = st.sampled_from(["inquiries", "canary-a-bundle", "canary-b-bundle", "none"])
LABELS = ["parking", "food", "bath", "room"]


@pytest.fixture(autouse=True, scope="module")
def bundles_of_their_own(tmp_path_factory):
    """A bundle for each side, whose labels only it may see: an answer from the other's would show."""
    folder = tmp_path_factory.mktemp("sides")
    os.environ["MACHIKOBA_HOME"] = str(folder / "home")
    for name in "ab":
        rows = [(text, f"canary-{name}-label-{label}") for text, label in messages(120)]
        Businesses.made[name] = machikoba.tune(write_csv(folder / f"{name}.csv", rows), folder / f"{name}.bundle",
                                               rungs=("words",)).path


class Heard(logging.Handler):
    """Everything that is logged."""

    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(self.format(record))


class Side:
    """One business: its clients, and the canaries that only it may see."""

    def __init__(self, machine, name):
        self.name, self.canaries, self.seen = name, {f"canary-{name}-business"}, []
        with machine.shop.database.writing() as session:
            business = people.add_business(session, f"canary-{name}-business", "console")
            self.id = business.id
            folder = machine.shop.home / "businesses" / business.id / "bundles" / "1.bundle"
            shutil.copytree(machine.made[name], folder)
            bundles.add(session, business.id, "inquiries", folder, machine.shop.home, "console")
            bundles.add(session, business.id, f"canary-{name}-bundle", folder, machine.shop.home, "console")
            invitation = people.invite(session, business.id, "owner", "console")
            self.key = people.add_key(session, business.id, f"canary-{name}-key", "staff", "console")[1]
        self.canaries |= {f"canary-{name}-label", f"canary-{name}-bundle", f"canary-{name}-key", f"canary-{name}@example.jp",
                          f"canary-{name}-person", self.key, self.id}
        self.browser = TestClient(machine.app, raise_server_exceptions=False, client=("127.0.0.1", 5))
        opened = self.browser.post("/v1/accounts", json={"token": invitation, "mail": f"canary-{name}@example.jp",
                                                         "name": f"canary-{name}-person", "password": PASSWORD})
        self.form = opened.json()["csrf"]
        self.csrf = {"X-Machikoba-CSRF": self.form}
        self.program = TestClient(machine.app, raise_server_exceptions=False, headers={"Authorization": f"Bearer {self.key}"})

    def ask(self, method, path, as_person, **options):
        client = self.browser if as_person else self.program
        headers = {**(self.csrf if as_person else {}), **options.pop("headers", {})}
        answer = client.request(method, path, headers=headers, **options)
        assert answer.status_code < 500, (method, path, answer.text)
        self.seen.append(f"{answer.status_code} {answer.headers} {answer.text}")
        return answer


class Businesses(RuleBasedStateMachine):
    made: dict[str, Path] = {}
    count = itertools.count()

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        home = Path(self.folder.name)
        database = Database(default_url(home))
        upgrade(database)
        self.shop = Workshop.start(home, database, local=False)
        self.app = create_app(self.shop, ["testserver"])
        self.log = Heard()
        logging.getLogger().addHandler(self.log)
        logging.getLogger("machikoba").setLevel(logging.DEBUG)
        self.sides = [Side(self, "a"), Side(self, "b")]

    def teardown(self):
        logging.getLogger().removeHandler(self.log)
        logging.getLogger("machikoba").setLevel(logging.NOTSET)
        self.shop.close()
        self.folder.cleanup()

    def ids(self, kind, side):
        """Ids of the other side's rows, guessed by somebody who saw them."""
        other = self.sides[1 - self.sides.index(side)]
        with self.shop.database.reading() as session:
            return [row.id for row in session.scalars(select(kind).where(kind.business_id == other.id))] or ["0" * 32]

    sides_ = st.sampled_from([0, 1])

    @rule(which=sides_, as_person=st.booleans(), label=st.sampled_from(LABELS), key=st.sampled_from(["1", "2", None]))
    def correct(self, which, as_person, label, key):
        side = self.sides[which]
        canary = f"canary-{side.name}-text-{next(self.count)}"
        answer = side.ask("POST", "/v1/bundles/inquiries/corrections", as_person,
                          json={"text": canary, "label": f"canary-{side.name}-label-{label}"},
                          headers={"Idempotency-Key": key} if key else {})
        if answer.status_code == 201:
            side.canaries |= {canary, answer.json()["id"]}

    @rule(which=sides_, as_person=st.booleans(), name=NAMES)
    def predict(self, which, as_person, name):
        side = self.sides[which]
        text = f"canary-{side.name}-asked-{next(self.count)}"
        side.canaries.add(text)
        answer = side.ask("POST", f"/v1/bundles/{name}/predict", as_person, json={"texts": [text, "駐車場"]})
        mine = name in ("inquiries", f"canary-{side.name}-bundle")
        assert answer.status_code == (200 if mine else 404)
        assert not mine or all(one["label"].startswith(f"canary-{side.name}-") for one in answer.json()["predictions"])
        if not mine:  # the name that was asked for comes back; it is the asker's own word
            side.seen[-1] = side.seen[-1].replace(name, "")

    @rule(which=sides_, as_person=st.booleans(), path=st.sampled_from([
        "/v1/bundles", "/v1/tasks", "/v1/keys", "/v1/people", "/v1/sign-ins", "/v1/bundles/inquiries/corrections",
        "/v1/bundles/inquiries/versions", "/healthz",
        "/v1/openapi.json", "/metrics", "/none", "/v1/backups"]))
    def look(self, which, as_person, path):
        self.sides[which].ask("GET", path, as_person)

    @rule(which=sides_, path=st.sampled_from([
        "/", "/start", "/people", "/bundles/inquiries", "/bundles/inquiries/try", "/bundles/inquiries/versions",
        "/desk/inquiries", "/desk/inquiries/add",
        "/desk/inquiries/all", "/desk/inquiries/all?words=canary", "/account", "/none"]))
    def look_at_a_page(self, which, path):
        self.sides[which].ask("GET", path, True, headers={"Accept": "text/html"})

    @rule(which=sides_, label=st.sampled_from(LABELS))
    def work_the_desk(self, which, label):
        side = self.sides[which]
        canary = f"canary-{side.name}-text-{next(self.count)}"
        side.canaries.add(canary)
        assert side.ask("POST", "/desk/inquiries/add", True, data={"csrf": side.form, "texts": canary}).status_code == 200
        item = re.search(r'name="item" value="(\w+)"', side.ask("GET", "/desk/inquiries", True).text)
        if item:
            side.canaries.add(item[1])
            side.ask("POST", "/desk/inquiries", True, data={"csrf": side.form, "item": item[1],
                                                            "label": f"canary-{side.name}-label-{label}"})

    @rule(which=sides_)
    def send_a_file(self, which):
        side = self.sides[which]
        canary = f"canary-{side.name}-file-{next(self.count)}"
        side.canaries.add(canary)
        answer = side.ask("POST", "/start", True, data={"csrf": side.form}, files={
            "file": (f"{canary}.csv", f"text,label\n{canary},{canary}-label\n".encode(), "text/csv")})
        assert answer.status_code == 200

    @rule(which=sides_, data=st.data())
    def reach_for_the_others_pages(self, which, data):
        side = self.sides[which]
        job, item = data.draw(st.sampled_from(self.ids(Job, side))), data.draw(st.sampled_from(self.ids(Item, side)))
        for path in (f"/start/{job}", f"/start/{job}/cost", f"/work/{job}", f"/work/{job}/events", f"/sort/{job}",
                     f"/sort/{job}/kinds", f"/sort/{job}/kinds/0"):
            assert side.ask("GET", path, True).status_code == 404
        for path in (f"/start/{job}", f"/start/{job}/run", f"/start/{job}/sort", f"/work/{job}/cancel", f"/sort/{job}",
                     f"/sort/{job}/kinds", f"/sort/{job}/kinds/0", f"/sort/{job}/make", f"/sort/{job}/delete"):
            assert side.ask("POST", path, True, data={"csrf": side.form, "name": "x"}).status_code == 404
        for path, form in (("/desk/inquiries", {"item": item, "label": f"canary-{side.name}-label-bath"}),
                           (f"/desk/inquiries/assign/{item}", {"person": ""})):
            assert side.ask("POST", path, True, data={"csrf": side.form, **form}).status_code == 409
        # The address that was asked for comes back, in the links of the page; it is the asker's own word.
        side.seen = [seen.replace(job, "").replace(item, "") for seen in side.seen]

    @rule(which=sides_, data=st.data())
    def reach_for_the_others(self, which, data):
        side = self.sides[which]
        key, job = data.draw(st.sampled_from(self.ids(Key, side))), data.draw(st.sampled_from(self.ids(Job, side)))
        correction = data.draw(st.sampled_from(self.ids(Correction, side)))
        with self.shop.database.reading() as session:
            before = {one.id: one.ended_at for one in session.scalars(select(Key))}
        for method, path in (("DELETE", f"/v1/keys/{key}"), ("GET", f"/v1/tasks/{job}"), ("POST", f"/v1/tasks/{job}/cancel"),
                             ("GET", f"/v1/tasks/{job}/file")):
            assert side.ask(method, path, True).status_code == 404
        side.ask("GET", f"/v1/bundles/inquiries/corrections?after={correction}", True)
        other = self.sides[1 - which]
        assert side.ask("GET", "/v1/bundles", True, headers={"X-Machikoba-Business": other.id}).status_code == 404
        with self.shop.database.reading() as session:
            assert {one.id: one.ended_at for one in session.scalars(select(Key))} == before

    @rule(which=sides_, key=st.sampled_from(["1", "2", None]), usable=st.booleans())
    def upload(self, which, key, usable):
        side = self.sides[which]
        canary = f"canary-{side.name}-file-{next(self.count)}"
        rows = [(text, f"{canary}-{label}") for text, label in messages(80)] if usable else [(canary, f"{canary}-label")]
        file = "text,label\n" + "".join(f"{text},{label}\n" for text, label in rows)
        answer = side.ask("POST", "/v1/tasks", True, data={"name": canary, "rungs": "words"}, files={
            "file": (f"{canary}.csv", file.encode(), "text/csv")}, headers={"Idempotency-Key": key} if key else {})
        side.canaries.add(canary)
        if answer.status_code == 201:
            side.canaries.add(answer.json()["id"])

    @rule(which=sides_, dry_run=st.booleans())
    def forget(self, which, dry_run):
        """Asks for the others' people as well as for its own."""
        side, other = self.sides[which], self.sides[1 - which]

        def texts(of):
            with self.shop.database.reading() as session:
                return len(session.scalars(select(Correction).where(Correction.business_id == of.id)).all())

        before = texts(side), texts(other)
        answer = side.ask("POST", "/v1/forget", True, json={
            "texts": [f"canary-{one.name}-{kind}" for one in self.sides for kind in ("text", "file")], "at_most": 1_000,
            "dry_run": dry_run})
        # What it asked for is its own word; so is what a look shows it of its own.
        assert answer.status_code == 200
        assert (texts(side), texts(other)) == (before if dry_run else (0, before[1]))
        assert answer.json()["found"]["corrections"] == before[0]
        for one in answer.json()["backups"]:  # of the whole installation: that they may still hold it is told to each
            side.seen[-1] = side.seen[-1].replace(one["id"], "")

    @rule(which=sides_, as_person=st.booleans(), kind=st.sampled_from(["replay", "export", "tune-again"]), name=NAMES,
          key=st.sampled_from(["1", "2", None]))
    def work(self, which, as_person, kind, name, key):
        side = self.sides[which]
        answer = side.ask("POST", f"/v1/bundles/{name}/{kind}", as_person, headers={"Idempotency-Key": key} if key else {})
        mine = name in ("inquiries", f"canary-{side.name}-bundle")
        expected = (403,) if not as_person else (201, 409, 429) if mine else (404, 409)  # 409: the key was used for other work
        assert answer.status_code in expected
        if answer.status_code == 201:
            side.canaries.add(answer.json()["id"])
        elif not mine:  # the asker's own word comes back
            side.seen[-1] = side.seen[-1].replace(name, "")

    @rule(which=sides_, name=NAMES)
    def learn(self, which, name):
        """From its own decisions, into a version of its own."""
        side = self.sides[which]
        answer = side.ask("POST", f"/bundles/{name}/learn", True, data={"csrf": side.form})
        mine = name in ("inquiries", f"canary-{side.name}-bundle")
        assert answer.status_code in ((200, 409, 429) if mine else (404,))
        if not mine:
            side.seen[-1] = side.seen[-1].replace(name, "")

    @rule(which=sides_, name=NAMES, number=st.integers(1, 3), page=st.booleans())
    def go_back(self, which, name, number, page):
        side = self.sides[which]
        answer = side.ask("POST", f"/bundles/{name}/versions", True, data={"csrf": side.form, "number": number}) if page else (
            side.ask("POST", f"/v1/bundles/{name}/versions/{number}/use", True))
        mine = name in ("inquiries", f"canary-{side.name}-bundle")
        assert answer.status_code in ((200, 404, 409) if mine else (404,))
        if not mine:
            side.seen[-1] = side.seen[-1].replace(name, "")

    @rule(which=sides_)
    def the_worker_works(self, which):
        """Everything that waits is done; what comes of it is the side's own."""
        worker = Worker(self.shop.home, self.shop.database, "w")
        while lease := jobs.take(self.shop.database, "w"):
            worker.work(lease)
        side = self.sides[which]
        for task in side.ask("GET", "/v1/tasks", True).json()["tasks"]:
            fetched = side.browser.get(f"/v1/tasks/{task['id']}/file")
            assert fetched.status_code == (404 if task["kind"] != "export" else 200 if task["state"] == "done" else 409)
            if fetched.status_code == 200:
                side.seen.append(str(fetched.headers))
                with zipfile.ZipFile(io.BytesIO(fetched.content)) as packed:
                    side.seen += [f"{name} {packed.read(name).decode(errors='replace')}" for name in packed.namelist()]

    @rule(which=sides_, as_person=st.booleans())
    def back_up(self, which, as_person):
        """Only whoever owns the first business may; what the task tells has nothing of anybody in it."""
        answer = self.sides[which].ask("POST", "/v1/backups", as_person, json={"keep_days": 1})
        assert answer.status_code in ((201, 429) if as_person and which == 0 else (403,))
        if answer.status_code == 201:
            self.sides[0].canaries.add(answer.json()["id"])

    @rule(which=sides_)
    def invite(self, which):
        side = self.sides[which]
        side.canaries.add(side.ask("POST", "/v1/invitations", True, json={"role": "viewer"}).json()["token"])

    @rule(which=sides_)
    def wrong_password(self, which):
        side, other = self.sides[which], self.sides[1 - which]
        answer = side.program.post("/v1/sign-ins", json={"mail": f"canary-{other.name}@example.jp", "password": "guess-guess"})
        assert answer.status_code in (401, 429)
        side.seen.append(answer.text)

    @invariant()
    def nothing_leaks(self):
        if not hasattr(self, "sides"):
            return
        for side, other in (self.sides, self.sides[::-1]):
            told = json.dumps(side.seen, ensure_ascii=False)
            assert not [canary for canary in other.canaries if canary in told]
            side.seen.clear()
        logged = "\n".join(self.log.lines)
        private = [canary for side in self.sides for canary in side.canaries
                   if any(kind in canary for kind in ("-text-", "-asked-", "-file-", "@")) or canary == side.key]
        assert not [canary for canary in private if canary in logged]
        with self.shop.database.reading() as session:
            for row in session.scalars(select(BundleEntry)):
                assert row.folder.startswith(f"businesses/{row.business_id}/"), "a bundle in another's folder"
            assert all(row.role for row in session.scalars(select(Invitation)))


TestBusinesses = Businesses.TestCase
TestBusinesses.settings = settings(max_examples=8, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck))
