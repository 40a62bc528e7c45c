"""Proofs repeated, bundles exported and backups made by request: who may, and what comes back."""
from __future__ import annotations

import io
import os
import time
import zipfile

import pytest
from sqlalchemy import select

from machikoba.desk import bundles, exports
from machikoba.store import archive, backup, jobs, people
from machikoba.store.tables import BundleEntry, Job
from machikoba.web.tasks import MOST_WAITING
from machikoba.worker.run import Worker


@pytest.fixture
def owners(shop, inn, clinic):
    """Keys of the owners of the first business and of the second."""
    with shop.database.writing() as session:
        return [{"Authorization": f"Bearer {people.add_key(session, side.id, 'o', 'owner', 'console')[1]}"}
                for side in (inn, clinic)]


def work(shop):
    worker = Worker(shop.home, shop.database, "w")
    while lease := jobs.take(shop.database, "w"):
        worker.work(lease)


def code(answer):
    body = answer.json()["error"]
    assert set(body) == {"code", "message", "expected", "found", "next"}
    return body["code"]


def test_replay(client, shop, owners):
    task = client.post("/v1/bundles/inquiries/replay", headers=owners[0])
    assert (task.status_code, task.json()["kind"], task.json()["state"]) == (201, "replay", "queued")
    work(shop)
    told = client.get(f"/v1/tasks/{task.json()['id']}", headers=owners[0]).json()
    assert (told["state"], told["result"]["stands"], told["result"]["changed"]) == ("done", True, 0)


def test_export_and_fetch(client, shop, owners, inn):
    task = client.post("/v1/bundles/inquiries/export", headers=owners[0]).json()["id"]
    path = f"/v1/tasks/{task}/file"
    early = client.get(path, headers=owners[0])
    assert (early.status_code, code(early)) == (409, "file_not_ready")
    work(shop)
    fetched = client.get(path, headers=owners[0])
    assert (fetched.status_code, fetched.headers["Content-Type"]) == (200, "application/zip")
    assert fetched.headers["Content-Disposition"] == "attachment; filename*=UTF-8''inquiries.zip"
    assert int(fetched.headers["Content-Length"]) == len(fetched.content)
    with zipfile.ZipFile(io.BytesIO(fetched.content)) as packed:
        assert packed.testzip() is None
        assert not [name for name in packed.namelist() if "examples" in name]
    for headers, status in ((inn.staff, 403), (owners[1], 404)):
        assert client.get(path, headers=headers).status_code == status
    file = exports.place(shop.home, inn.id, task)
    os.utime(file, (time.time() - 8 * 86_400,) * 2)
    exports.clear(shop.home)
    late = client.get(path, headers=owners[0])
    assert (late.status_code, code(late)) == (404, "file_gone")


def test_other_tasks_have_no_file(client, shop, owners):
    task = client.post("/v1/bundles/inquiries/replay", headers=owners[0]).json()["id"]
    work(shop)
    assert code(client.get(f"/v1/tasks/{task}/file", headers=owners[0])) == "file_none"


@pytest.mark.parametrize("kind", ["replay", "export"])
def test_who_may(client, owners, inn, kind):
    for headers, status in ((inn.staff, 403), (inn.viewer, 403), ({}, 401)):
        assert client.post(f"/v1/bundles/inquiries/{kind}", headers=headers).status_code == status
    assert code(client.post(f"/v1/bundles/none/{kind}", headers=owners[0])) == "bundle_unknown"


@pytest.mark.parametrize("path", ["/v1/bundles/inquiries/replay", "/v1/bundles/inquiries/export", "/v1/backups"])
def test_sent_twice_it_is_done_once(client, shop, owners, path):
    options = {"json": {}} if path == "/v1/backups" else {}
    first, again = (client.post(path, headers=owners[0] | {"Idempotency-Key": "k"}, **options) for _ in range(2))
    assert first.json()["id"] == again.json()["id"]
    assert again.headers["Idempotent-Replay"] == "true"
    with shop.database.reading() as session:
        assert len(session.scalars(select(Job)).all()) == 1
    other = client.post("/v1/bundles/inquiries/" + ("export" if path.endswith("replay") else "replay"),
                        headers=owners[0] | {"Idempotency-Key": "k"})
    assert (other.status_code, code(other)) == (409, "idempotency_conflict")


def test_no_more_than_so_many_wait(client, owners):
    answers = [client.post("/v1/bundles/inquiries/replay", headers=owners[0]) for _ in range(MOST_WAITING + 1)]
    assert [answer.status_code for answer in answers] == [201] * MOST_WAITING + [429]


def test_cancelled_before_it_began(client, shop, owners):
    for path, options in (("/v1/bundles/inquiries/export", {}), ("/v1/backups", {"json": {}})):
        task = client.post(path, headers=owners[0], **options).json()["id"]
        assert client.post(f"/v1/tasks/{task}/cancel", headers=owners[0]).json()["state"] == "cancelled"
    work(shop)
    assert not list(shop.home.glob("businesses/*/exports/*"))
    assert not (shop.home / "backups").exists()


def test_backups_are_for_whoever_looks_after_the_server(client, shop, owners, inn):
    for method in ("GET", "POST"):
        options = {"json": {}} if method == "POST" else {}
        for headers in (owners[1], inn.staff, inn.viewer):
            answer = client.request(method, "/v1/backups", headers=headers, **options)
            assert (answer.status_code, code(answer)) == (403, "not_allowed")
    assert client.get("/v1/backups", headers=owners[0]).json() == {"backups": []}
    task = client.post("/v1/backups", headers=owners[0], json={"keep_days": 3}).json()["id"]
    work(shop)
    told = client.get(f"/v1/tasks/{task}", headers=owners[0]).json()
    assert told["state"] == "done", told
    file = shop.home / backup.FOLDER / told["result"]["file"]
    assert archive.verify(file, None)["businesses"] == 2
    [one] = client.get("/v1/backups", headers=owners[0]).json()["backups"]
    assert (one["id"], one["bytes"], one["here"], one["encrypted"]) == (task, file.stat().st_size, True, False)
    assert one["kept_until"] > one["made_at"]
    assert client.get(f"/v1/tasks/{task}/file", headers=owners[0]).status_code == 404
    assert client.get(f"/v1/tasks/{task}", headers=owners[1]).status_code == 404


def test_a_bundle_deleted_before_the_work(client, shop, owners, inn):
    import shutil

    task = client.post("/v1/bundles/inquiries/replay", headers=owners[0]).json()["id"]
    with shop.database.reading() as session:
        entry = session.scalars(select(BundleEntry).where(BundleEntry.business_id == inn.id)).one()
    shutil.rmtree(bundles.folder_of(entry, shop.home))
    work(shop)
    told = client.get(f"/v1/tasks/{task}", headers=owners[0]).json()
    assert (told["state"], told["error"]["code"]) == ("failed", "bundle_missing")
    assert str(shop.home) not in str(told)
