"""The owner forgets a person through the API; past texts reach signed-in staff only."""
from __future__ import annotations

import json

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from machikoba.pack import erased
from machikoba.store import jobs, people
from machikoba.store.tables import Business, Correction, Job, Write
from machikoba.worker.run import Worker
from tests.web.test_api import ASK, CORRECT, PASSWORD, code

NAME = "貉山鼬子"


def person(app, shop, business, role, mail):
    """A signed-in browser, and the header for its changes."""
    with shop.database.writing() as session:
        token = people.invite(session, business, role, "console")
    browser = TestClient(app, raise_server_exceptions=False)
    opened = browser.post("/v1/accounts", json={"token": token, "mail": mail, "name": "a", "password": PASSWORD})
    browser.headers["X-Machikoba-CSRF"] = opened.json()["csrf"]
    return browser


@pytest.fixture
def owner(app, shop, inn):
    return person(app, shop, inn.id, "owner", "owner@example.jp")


def test_from_a_look_to_the_receipt_and_the_bundle(owner, client, shop, inn, clinic, monkeypatch):
    monkeypatch.setenv("MACHIKOBA_HOME", str(shop.home))
    for tenant in (inn, clinic):
        for text in (f"{NAME}です", "風呂は何時"):
            assert client.post(CORRECT, headers={**tenant.staff, "Idempotency-Key": text[:1].encode().hex()},
                               json={"text": text, "label": "bath"}).status_code == 201
    path = shop.home / "businesses" / inn.id / "bundles" / "1.bundle"
    message = json.loads((path / "examples.jsonl").read_text(encoding="utf-8").splitlines()[0])
    asked = {"texts": [NAME, message["id"]]}
    look = owner.post("/v1/forget", json={**asked, "dry_run": True}).json()
    assert look["receipt"] is None
    assert {row["text"] for row in look["rows"] if row["text"]} == {f"{NAME}です", message["text"]}
    assert owner.get(CORRECT).json()["corrections"][0]["text"] == f"{NAME}です"
    answer = owner.post("/v1/forget", json=asked, headers={"Idempotency-Key": "f"})
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert (told["found"]["messages"], told["found"]["corrections"], told["found"]["answers"]) == (1, 1, 1)
    assert told["rows"] == []
    assert NAME not in answer.text
    assert owner.post("/v1/forget", json=asked, headers={"Idempotency-Key": "f"}).json() == told
    other = owner.post("/v1/forget", json={"texts": ["山本太郎"]}, headers={"Idempotency-Key": "f"})
    assert (other.status_code, code(other)) == (409, "idempotency_conflict")
    assert [one["text"] for one in owner.get(CORRECT).json()["corrections"]] == ["風呂は何時"]
    (task,) = told["tasks"]
    assert owner.get(f"/v1/tasks/{task}").json()["kind"] == "remake"
    assert owner.post(ASK, json={"texts": ["無料の駐車場"]}).json()["predictions"][0]["label"] == "parking"
    Worker(shop.home, shop.database, "w").work(jobs.take(shop.database, "w"))
    assert owner.get(f"/v1/tasks/{task}").json()["state"] == "done"
    assert not erased.unfinished(path)
    assert owner.post(ASK, json={"texts": ["無料の駐車場"]}).json()["predictions"][0]["label"] == "parking"
    with shop.database.reading() as session:
        kept = session.scalars(select(Correction).where(Correction.business_id == clinic.id)).all()
        assert len(kept) == 2
        assert all(NAME not in str((job.options, job.result)) for job in session.scalars(select(Job)))
        assert all(NAME not in str((one.answer, one.digest)) for one in session.scalars(select(Write)))
    assert not erased.unfinished(shop.home / "businesses" / clinic.id / "bundles" / "1.bundle")


def test_void_and_too_many(owner, shop, inn, monkeypatch):
    monkeypatch.setenv("MACHIKOBA_HOME", str(shop.home))
    refused = owner.post("/v1/forget", json={"texts": ["です"]})
    assert (refused.status_code, code(refused)) == (409, "forget_too_many")
    short = owner.post("/v1/forget", json={"texts": ["林"]})
    assert (short.status_code, code(short)) == (422, "trace_too_short")
    path = shop.home / "businesses" / inn.id / "bundles" / "1.bundle"
    message = json.loads((path / "examples.jsonl").read_text(encoding="utf-8").splitlines()[0])
    told = owner.post("/v1/forget", json={"texts": [message["id"]], "void": True}).json()
    Worker(shop.home, shop.database, "w").work(jobs.take(shop.database, "w"))
    assert owner.get(f"/v1/tasks/{told['tasks'][0]}").json()["result"]["status"] == "void"
    assert owner.get("/v1/bundles").json() == {"bundles": []}
    assert not path.exists()


def test_a_task_that_makes_a_bundle_again_can_be_stopped(owner, shop, inn):
    with shop.database.writing() as session:
        job = jobs.add(session, inn.id, "remake", {"folder": "x", "void": False}, "person:1").id
    assert owner.post(f"/v1/tasks/{job}/cancel").json()["state"] == "cancelled"


def test_only_the_owner_and_only_signed_in(app, shop, client, inn):
    asked = {"texts": [NAME], "dry_run": True}
    staff = person(app, shop, inn.id, "staff", "staff@example.jp")
    with shop.database.writing() as session:
        key = people.add_key(session, inn.id, "k", "owner", "console")[1]
    assert code(staff.post("/v1/forget", json=asked)) == "not_allowed"
    assert code(client.post("/v1/forget", json=asked, headers=inn.staff)) == "not_allowed"
    assert code(client.post("/v1/forget", json=asked, headers={"Authorization": f"Bearer {key}"})) == "texts_not_for_keys"
    for answer in (staff.get("/v1/business"), staff.put("/v1/business", json={"retention_days": 3})):
        assert code(answer) == "not_allowed"


def test_retention_is_shown_and_set(owner, shop, inn):
    assert owner.get("/v1/business").json() == {"id": inn.id, "name": "Minato Inn", "retention_days": None}
    assert owner.put("/v1/business", json={"retention_days": 90}).json()["retention_days"] == 90
    assert owner.put("/v1/business", json={"retention_days": 0}).status_code == 422
    with shop.database.reading() as session:
        assert session.get(Business, inn.id).retention_days == 90
    assert owner.put("/v1/business", json={"retention_days": None}).json()["retention_days"] is None


def test_past_texts_reach_signed_in_staff_only(app, shop, client, inn, clinic):
    """Every route that could tell of past texts, asked by whoever may not see them."""
    path = shop.home / "businesses" / inn.id / "bundles" / "1.bundle"
    messages = [json.loads(line)["text"] for line in (path / "examples.jsonl").read_text(encoding="utf-8").splitlines()]
    secret = f"{NAME}の苦情"
    client.post(CORRECT, headers=inn.staff, json={"text": secret, "label": "bath"})
    with shop.database.writing() as session:
        job = jobs.add(session, inn.id, "tune", {"name": "n", "upload": "u.csv"}, "person:1")
        job.state, job.error = "failed", {"code": "label_too_small", "message": "m", "next": "n",
                                          "expected": secret, "found": f"{secret}: 3"}
        job = job.id
    staff = person(app, shop, inn.id, "staff", "staff@example.jp")
    viewer = person(app, shop, inn.id, "viewer", "viewer@example.jp")
    stranger = person(app, shop, clinic.id, "owner", "stranger@example.jp")
    keys = [TestClient(app, raise_server_exceptions=False, headers=headers) for headers in (inn.staff, inn.viewer, clinic.staff)]
    asked = 0
    for route, methods in app.openapi()["paths"].items():
        for method in methods:
            filled = route.replace("{name}", "inquiries").replace("{task}", job).replace("{key}", "0" * 32).replace(
                "{person}", "0" * 32).replace("{sign_in}", "0" * 32)
            body = {"texts": [secret], "dry_run": True} if filled == "/v1/forget" else {"texts": [messages[0]], "x": secret}
            for client_ in (*([viewer, stranger] if method == "get" or "forget" in route else []), *keys):
                if method == "delete" or "cancel" in route:
                    continue
                answer = client_.request(method, filled, **({} if method == "get" else {"json": body}))
                assert answer.status_code < 500, (method, filled, answer.text)
                assert secret not in answer.text, (method, filled)
                assert not any(message in answer.text for message in messages), (method, filled)
                asked += 1
    assert asked > 60
    assert secret in staff.get(CORRECT).text
    assert secret in staff.get(f"/v1/tasks/{job}").text
