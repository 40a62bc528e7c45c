"""The API as a program uses it, and what it says to those that use it wrongly."""
from __future__ import annotations

import shutil
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from machikoba.desk import bundles
from machikoba.engine import lanes
from machikoba.store import audit, people
from machikoba.store.tables import Business, Correction, Entry, Key, SignIn, now
from machikoba.web import guard
from machikoba.web.workshop import Workshop

ASK = "/v1/bundles/inquiries/predict"
CORRECT = "/v1/bundles/inquiries/corrections"
PASSWORD = "yama-kawa-umi-sora"


def code(answer):
    """The code of an error, after checking its shape."""
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "expected", "found", "next"}
    assert body["error"]["message"]
    return body["error"]["code"]


def owner(shop, business, mail="a@example.jp"):
    with shop.database.writing() as session:
        return people.invite(session, business, "owner", "console")


def test_predict(client, inn):
    answer = client.post(ASK, headers=inn.viewer, json={"texts": ["駐車場 無料はありますか", "朝食の献立"]})
    assert answer.status_code == 200
    found = answer.json()
    assert found["bundle"] == "inquiries"
    assert [one["label"] for one in found["predictions"]] == ["parking", "food"]
    assert set(found["predictions"][0]) == {"label", "confidence", "answered", "would_answer"}
    assert client.post(ASK, headers=inn.viewer, json={"texts": []}).json()["predictions"] == []


def test_the_list(client, inn):
    found = client.get("/v1/bundles", headers=inn.viewer).json()["bundles"]
    assert [(one["name"], one["task"], one["qualified"]) for one in found] == [("inquiries", "classify", True)]
    assert found[0]["created_at"].endswith(("Z", "+00:00"))


def test_the_list_loads_nothing_and_leaves_out_what_is_not_there(client, shop, inn, made, monkeypatch):
    with shop.database.writing() as session:
        for name in ("gone", "torn", "newer"):
            folder = shop.home / f"{name}.bundle"
            shutil.copytree(made.path, folder)
            bundles.add(session, inn.id, name, folder, shop.home, "console")
    shutil.rmtree(shop.home / "gone.bundle")
    (shop.home / "torn.bundle" / "bundle.json").write_text('{"format": 1}')
    (shop.home / "newer.bundle" / "bundle.json").write_text('{"format": 99}')
    monkeypatch.setattr(shop.engine, "load", None)
    found = client.get("/v1/bundles", headers=inn.viewer).json()["bundles"]
    assert [(one["name"], one["labels"]) for one in found] == [("inquiries", sorted(found[0]["labels"]))]


@pytest.mark.parametrize(("headers", "expected"), [
    ({}, "sign_in_needed"), ({"Authorization": "Bearer mk_wrong"}, "key_unknown"),
    ({"Authorization": "Basic eDp5"}, "sign_in_needed"), ({"Authorization": "Bearer"}, "sign_in_needed"),
    ({"Cookie": "machikoba=guessed"}, "sign_in_needed")])
def test_nobody_comes_in_without(client, inn, headers, expected):
    for path in ("/v1/bundles", "/v1/tasks", "/v1/keys", "/v1/people", CORRECT):
        answer = client.get(path, headers=headers)
        assert (answer.status_code, code(answer)) == (401, expected)
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_an_expired_and_an_ended_key(client, shop, inn):
    with shop.database.writing() as session:
        key, secret = people.add_key(session, inn.id, "old", "staff", "console", days=1)
        key.expires_at = now() - timedelta(seconds=1)
    assert code(client.get("/v1/bundles", headers={"Authorization": f"Bearer {secret}"})) == "key_expired"
    with shop.database.writing() as session:
        for key in session.scalars(select(Key)):
            key.ended_at = now()
    shop.visitors.forget()
    assert code(client.get("/v1/bundles", headers=inn.staff)) == "key_unknown"


@pytest.mark.parametrize("name", [
    "none", "../inquiries", "inquiries'--", "..%2f..%2fetc", "%00", "a" * 200, "inquiries%20", "'; DROP TABLE keys"])
def test_tricks_in_names(client, inn, name):
    answer = client.post(f"/v1/bundles/{name}/predict", headers=inn.staff, json={"texts": ["a"]})
    assert answer.status_code in (404, 422)
    code(answer)


@pytest.mark.parametrize(("body", "status"), [
    (b"{", 400), (b"\xff\xfe", 400), (b'{"texts": ["\xff"]}', 400), (b"[]", 422), (b'{"texts": "a"}', 422),
    (b'{"texts": [1]}', 422), (b'{"texts": ["a"], "more": 1}', 422), (b'{"texts": ["\\ud800"]}', 422),
    (b'{"texts": ["a\\u0000"]}', 200), (b"null", 422), (b"", 422)])
def test_bodies_that_cannot_be_used(client, inn, body, status):
    answer = client.post(ASK, headers={**inn.staff, "Content-Type": "application/json"}, content=body)
    assert answer.status_code == status, answer.text
    assert status == 200 or code(answer)


def test_no_characters_that_a_database_refuses(client, inn):
    for body in (b'{"mail": "\\ud800@b.jp", "password": "x"}', b'{"mail": "a\\u0000@b.jp", "password": "\\u0000"}'):
        answer = client.post("/v1/sign-ins", headers={"Content-Type": "application/json"}, content=body)
        assert answer.status_code in (401, 422)
    kept = client.post(CORRECT, headers=inn.staff, json={"text": "a\0b", "label": "parking", "predicted": "\0"})
    assert kept.status_code == 201


def test_no_customers_text_comes_back_in_an_error(client, inn):
    answer = client.post(ASK, headers=inn.staff, json={"texts": [{"secret": "090-1234-5678"}]})
    assert answer.status_code == 422
    assert "090" not in answer.text


def test_too_many_texts_and_too_long_ones(client, inn):
    assert client.post(ASK, headers=inn.staff, json={"texts": ["a"] * 10_000}).status_code == 422
    assert client.post(ASK, headers=inn.staff, json={"texts": ["a" * 20_001]}).status_code == 422
    assert client.post(ASK, headers=inn.staff, json={"texts": ["a" * 20_000]}).status_code == 200


def test_a_huge_body_is_refused_before_it_is_read(client, inn):
    def endless():
        for _ in range(200):
            yield b"x" * (1 << 20)

    declared = client.post(ASK, headers={**inn.staff, "Content-Length": str(200 << 20)}, content=b"{")
    streamed = client.post(ASK, headers={**inn.staff, "Content-Type": "application/json"}, content=endless())
    for answer in (declared, streamed):
        assert (answer.status_code, code(answer)) == (413, "too_large")


def test_a_busy_server_says_when_to_come_again(client, shop, inn, monkeypatch):
    def busy(*_args):
        raise lanes.BusyError(7)

    monkeypatch.setattr(shop.lanes, "ask", busy)
    answer = client.post(ASK, headers=inn.staff, json={"texts": ["a"]})
    assert (answer.status_code, code(answer), answer.headers["Retry-After"]) == (429, "busy", "7")


def test_a_bundle_deleted_while_in_use(client, shop, inn):
    assert client.post(ASK, headers=inn.staff, json={"texts": ["a"]}).status_code == 200
    shutil.rmtree(shop.home / "businesses" / inn.id)
    answer = client.post(ASK, headers=inn.staff, json={"texts": ["a"]})
    assert (answer.status_code, code(answer)) == (404, "bundle_missing")
    assert str(shop.home) not in answer.text
    assert client.get("/v1/bundles", headers=inn.staff).json() == {"bundles": []}


def test_a_correction_is_kept_with_its_trace(client, shop, inn):
    answer = client.post(CORRECT, headers=inn.staff, json={"text": "大型バイク", "label": "parking", "confidence": 0.4})
    assert answer.status_code == 201
    with shop.database.reading() as session:
        kept = session.scalars(select(Correction)).one()
        assert (kept.id, kept.text, kept.label, kept.business_id) == (answer.json()["id"], "大型バイク", "parking", inn.id)
        traced = [entry for entry in session.scalars(select(Entry)) if entry.action == "correction.add"]
        assert [entry.subject for entry in traced] == [f"correction:{kept.id}"]
        assert "バイク" not in str([entry.facts for entry in traced])
        assert audit.verify(session) is None


def test_what_may_not_correct(client, inn):
    assert code(client.post(CORRECT, headers=inn.viewer, json={"text": "a", "label": "parking"})) == "not_allowed"
    stray = client.post(CORRECT, headers=inn.staff, json={"text": "a", "label": "stray"})
    assert (stray.status_code, code(stray)) == (409, "label_unknown")
    assert code(client.get(CORRECT, headers=inn.staff)) == "texts_not_for_keys"


def test_the_same_write_twice_is_done_once(client, shop, inn):
    headers, body = {**inn.staff, "Idempotency-Key": "1"}, {"text": "a", "label": "parking"}
    first, second = (client.post(CORRECT, headers=headers, json=body) for _ in range(2))
    assert first.json() == second.json()
    assert second.headers["Idempotent-Replay"] == "true"
    other = client.post(CORRECT, headers=headers, json={"text": "b", "label": "parking"})
    assert (other.status_code, code(other)) == (409, "idempotency_conflict")
    with shop.database.reading() as session:
        assert len(session.scalars(select(Correction)).all()) == 1


def test_an_idempotency_key_is_a_business_s_own(client, inn, clinic):
    body = {"text": "a", "label": "parking"}
    first = client.post(CORRECT, headers={**inn.staff, "Idempotency-Key": "1"}, json=body)
    second = client.post(CORRECT, headers={**clinic.staff, "Idempotency-Key": "1"}, json=body)
    assert first.json() != second.json()


def test_a_full_disk_and_a_lost_database(client, shop, inn, monkeypatch):
    for words, status, wanted in (("database or disk is full", 507, "store_full"),
                                  ("server closed the connection", 503, "store_unreachable"),
                                  ("database is locked", 503, "store_busy")):
        def failing(_session, words=words):
            error = type("OperationalError", (Exception,), {})(words)
            raise OperationalError("INSERT", {}, error)

        monkeypatch.setattr("machikoba.store.audit.record", lambda session, *_a, fail=failing, **_o: fail(session))
        answer = client.post(CORRECT, headers=inn.staff, json={"text": "a", "label": "parking"})
        assert (answer.status_code, code(answer)) == (status, wanted)
        assert "Retry-After" in answer.headers or status == 507
    with shop.database.reading() as session:
        assert session.scalars(select(Correction)).all() == []


def test_keys_by_the_owner_only(client, shop, inn):
    for answer in (client.post("/v1/keys", headers=inn.staff, json={"name": "x"}), client.get("/v1/keys", headers=inn.staff)):
        assert (answer.status_code, code(answer)) == (403, "not_allowed")


def test_an_account_from_invitation_to_sign_out(client, shop, inn):
    token = owner(shop, inn.id)
    opened = client.post("/v1/accounts", json={"token": token, "mail": "a@example.jp", "name": "Aoki", "password": PASSWORD})
    assert opened.status_code == 201
    cookie = opened.headers["set-cookie"]
    assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Path=/"))
    csrf = {"X-Machikoba-CSRF": opened.json()["csrf"]}
    made = client.post("/v1/keys", json={"name": "desk"}, headers=csrf)
    assert made.status_code == 201
    secret = made.json()["secret"]
    assert client.get("/v1/bundles", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    assert secret not in client.get("/v1/keys").text
    assert code(client.post("/v1/keys", json={"name": "desk"})) == "csrf_missing"
    assert client.delete(f"/v1/keys/{made.json()['id']}", headers=csrf).status_code == 204
    assert code(client.get("/v1/bundles", headers={"Authorization": f"Bearer {secret}"})) == "key_unknown"
    assert [one["mail"] for one in client.get("/v1/people").json()["people"]] == ["a@example.jp"]
    with shop.database.writing() as session:
        session.scalars(select(SignIn)).one().seen_at -= timedelta(hours=1)
    client.get("/v1/people")
    sign_in = client.get("/v1/sign-ins").json()["sign_ins"][0]
    assert sign_in["seen_at"] >= sign_in["created_at"]
    client.post(CORRECT, headers=csrf, json={"text": "大型バイク", "label": "parking"})
    assert [one["text"] for one in client.get(CORRECT).json()["corrections"]] == ["大型バイク"]
    kept = dict(client.cookies)
    assert client.delete("/v1/sign-ins", headers=csrf).status_code == 204
    client.cookies.update(kept)
    assert code(client.get("/v1/people")) == "sign_in_needed"
    wrong = client.post("/v1/sign-ins", json={"mail": "a@example.jp", "password": "x"})
    assert (wrong.status_code, code(wrong)) == (401, "wrong_password")


def test_other_hosts_and_other_sites(client, inn):
    assert code(client.get("/healthz", headers={"Host": "evil.example"})) == "host_unknown"
    assert client.get("/healthz", headers={"Host": "localhost:8600"}).status_code == 200
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        answer = client.post(ASK, headers={**inn.staff, **headers}, json={"texts": ["a"]})
        assert (answer.status_code, code(answer)) == (403, "other_site")
    own = client.post(ASK, headers={**inn.staff, "Origin": "http://testserver"}, json={"texts": ["a"]})
    assert own.status_code == 200


def test_every_answer_has_safe_headers(client, inn):
    broken = client.post(ASK, headers=inn.staff, content=b"{")
    for answer in (client.get("/healthz"), client.get("/none"), client.get("/v1/bundles"), broken):
        for name, value in guard.HEADERS.items():
            assert answer.headers[name] == value
        assert "server" not in answer.headers


def test_errors_in_the_language_that_is_wanted(client):
    assert client.get("/v1/bundles", headers={"Accept-Language": "ja,en;q=0.5"}).json()["error"]["message"] != client.get(
        "/v1/bundles", headers={"Accept-Language": "en"}).json()["error"]["message"]


def test_metrics_are_for_this_machine_and_name_nobody(app, inn):
    from starlette.testclient import TestClient

    near = TestClient(app, client=("127.0.0.1", 5))
    near.post(ASK, headers=inn.staff, json={"texts": ["a"]})
    text = near.get("/metrics").text
    assert 'route="/v1/bundles/{name}/predict",status="200"' in text
    assert "inquiries" not in text
    assert near.get("/metrics", headers={"X-Forwarded-For": "10.0.0.1"}).status_code == 404
    assert TestClient(app, client=("10.0.0.1", 5)).get("/metrics").status_code == 404


def test_whoever_started_the_server_asks_with_its_key_until_somebody_has_another(client, shop):
    shop.local = "local_secret"
    with shop.database.writing() as session:
        session.add(Business(name="Inn"))
    own = {"Authorization": "Bearer local_secret"}
    assert client.get("/v1/bundles", headers=own).json() == {"bundles": []}
    for stranger in ({}, {"Authorization": "Bearer local_guessed"}, {"Authorization": "Bearer local_"}):
        assert client.get("/v1/bundles", headers=stranger).status_code == 401
    assert client.post("/v1/keys", headers=own, json={"name": "desk"}).status_code == 201
    assert code(client.get("/v1/bundles", headers=own)) == "sign_in_needed"


def test_where_there_is_no_key_of_the_console_an_empty_one_opens_nothing(client, shop, inn):
    assert shop.local == ""
    for secret in ('""', "local_", "\x00"):
        assert code(client.get("/v1/bundles", headers={"Authorization": f"Bearer {secret}"})) == "key_unknown"


def test_a_key_of_the_console_is_new_at_every_start(shop):
    made = {Workshop.start(shop.home, shop.database, local=True).local for _ in range(3)}
    assert len(made) == 3
    assert min(map(len, made)) >= 24
    assert Workshop.start(shop.home, shop.database, local=False).local == ""


def test_tasks_from_file_to_queue(client, shop, inn):
    token = owner(shop, inn.id)
    csrf = {"X-Machikoba-CSRF": client.post("/v1/accounts", json={
        "token": token, "mail": "a@example.jp", "name": "Aoki", "password": PASSWORD}).json()["csrf"]}
    file = {"file": ("問い合わせ.csv", b"text,label\na,b\n", "text/csv")}
    answer = client.post("/v1/tasks", headers={**csrf, "Idempotency-Key": "t"}, data={"name": "new"}, files=file)
    assert answer.status_code == 201, answer.text
    again = client.post("/v1/tasks", headers={**csrf, "Idempotency-Key": "t"}, data={"name": "new"}, files=file)
    assert again.json()["id"] == answer.json()["id"]
    uploads = list((shop.home / "businesses" / inn.id / "uploads").iterdir())
    assert len(uploads) == 1
    task = answer.json()["id"]
    assert client.get(f"/v1/tasks/{task}").json()["state"] == "queued"
    assert client.post(f"/v1/tasks/{task}/cancel", headers=csrf).json()["state"] == "cancelled"
    assert not uploads[0].exists()
    assert [one["id"] for one in client.get("/v1/tasks").json()["tasks"]] == [task]
    wrong = client.post("/v1/tasks", headers=csrf, data={"name": "new"}, files={"file": ("a.exe", b"MZ", "text/csv")})
    assert (wrong.status_code, code(wrong)) == (422, "file_unusable")
    assert code(client.post("/v1/tasks", headers=csrf, data={"name": "../x"}, files=file)) == "name_unusable"
    assert code(client.post("/v1/tasks", headers=inn.staff, data={"name": "x"}, files=file)) == "not_allowed"
    assert code(client.get(f"/v1/tasks/{'0' * 32}", headers=inn.staff)) == "task_unknown"


def test_every_route_is_described(app):
    schema = app.openapi()
    for path, methods in schema["paths"].items():
        for method, about in methods.items():
            assert about["summary"], (method, path)
            assert about.get("description"), (method, path)
