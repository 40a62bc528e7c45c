"""The pages as a browser without a script uses them."""
from __future__ import annotations

import errno
import html
import io
import os
import re
import zipfile
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from openpyxl import Workbook
from sqlalchemy import select
from starlette.testclient import TestClient

from machikoba.desk.retention import sweep
from machikoba.store import jobs, people
from machikoba.store.tables import Job, now
from machikoba.web import guard
from machikoba.worker.run import Worker
from tests.conftest import messages
from tests.web.visitor import PASSWORD, Visitor, signed_in

PAGES = ("/", "/start", "/people")


@pytest.fixture
def owner(app, shop, inn):
    return signed_in(app, shop, inn)


@pytest.fixture
def stranger(client):
    return Visitor(client)


def table(rows, header="本文,分類"):
    return "\n".join([header, *(f'"{text}",{label}' for text, label in rows)]).encode()


def work(shop):
    worker = Worker(shop.home, shop.database, "w")
    while (lease := jobs.take(shop.database, "w")) is not None:
        worker.work(lease)


def uploads(shop, business):
    folder = shop.home / "businesses" / business.id / "uploads"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_from_a_file_to_a_sorter(owner, shop, inn):
    owner.get("/start").send("/start", files={"file": ("受付.csv", table(messages(150)))})
    assert owner.page.status_code == 200
    assert owner.heading == "受付.csv"
    assert "150 messages were read" in owner.text
    look = owner.path
    owner.send(look, text="本文", label="分類", name="受付", target_error="0.05", rungs="words,features", none_label="",
               never_automatic="food")
    assert owner.path == look + "/cost"
    assert "multilingual-e5-small" in owner.text or owner.page.status_code == 422
    with shop.database.writing() as session:
        job = session.scalars(select(Job)).one()
        assert (job.state, job.options["never_automatic"], job.options["target_error"]) == ("draft", ["food"], 0.05)
        job.options = {**job.options, "rungs": "words"}
    owner.get(look + "/cost")
    assert "Words alone" in owner.text
    owner.send(look + "/run")
    assert owner.path.startswith("/work/")
    assert "waits for its turn" in owner.text
    work(shop)
    owner.get(owner.path)
    assert "It is done." in owner.text
    assert "could answer alone" in owner.text
    owner.get("/bundles/受付")
    assert owner.page.status_code == 200
    assert "always to a person" in owner.text
    owner.get("/bundles/受付/try").send(text="駐車場はありますか")
    assert "It says" in owner.text
    assert uploads(shop, inn) == []
    owner.get("/")
    assert "受付" in owner.text


def test_the_same_file_twice_goes_on_where_it_was(owner, shop, inn):
    file = {"file": ("a.csv", table(messages(60)))}
    first = owner.get("/start").send("/start", files=file).path
    owner.get("/start").send("/start", files=file)
    assert owner.path == first
    assert "the same file before" in owner.text
    assert len(uploads(shop, inn)) == 1
    owner.send(f"/work/{first.rpartition('/')[2]}/cancel")
    assert (owner.path, uploads(shop, inn)) == ("/", [])


def test_a_work_is_begun_once(owner, shop):
    look = owner.get("/start").send("/start", files={"file": ("a.csv", table(messages(60)))}).path
    owner.send(look + "/run")
    assert owner.path == look, "nothing was chosen yet"
    owner.send(look, text="本文", label="分類", name="a", rungs="words", target_error="0.1")
    for _ in range(2):
        owner.get("/start").send(look + "/run")
        assert owner.path.startswith("/work/")
    with shop.database.reading() as session:
        assert [job.state for job in session.scalars(select(Job))] == ["queued"]
    owner.get(look)
    assert owner.path.startswith("/work/"), "the back button leads on to the work"


@pytest.mark.parametrize(("name", "content", "words"), [
    ("virus.xlsx", b"MZ\x90\x00" + bytes(500), "cannot be opened"), ("program.exe", b"MZ", "kind of file cannot be read"),
    ("empty.csv", b"", "empty"), ("a.csv", "本文,分類\n駐車場,x\n".encode("utf-16"), ""), ("..\\..\\a.csv", b"text\nhello\n", ""),
    ("numbers.csv", "マイナンバー,分類\n123456789018,a\n".encode(), "")])
def test_files_that_are_no_use_are_told_and_not_kept_in_the_way(owner, shop, inn, name, content, words):
    owner.get("/start").send("/start", files={"file": (name, content)})
    assert owner.page.status_code in (200, 422)
    assert words in owner.text
    assert "/tmp" not in owner.page.text
    assert "--" not in re.sub(r"<script.*?</script>|<!--.*?-->", "", owner.text), "no words of the command line"


def test_no_file(owner):
    owner.get("/start").send("/start", files={"file": ("", b"")})
    assert (owner.page.status_code, "No file was chosen" in owner.text) == (422, True)


def test_a_large_file_is_refused(owner, monkeypatch):
    monkeypatch.setattr(guard, "MOST_UPLOAD_BYTES", 10_000)
    owner.get("/start").send("/start", files={"file": ("a.csv", b"x" * 20_000)})
    assert owner.page.status_code == 413


def test_hostile_words_stay_words(owner, shop):
    kinds = ("<img src=x onerror=alert(1)>", "ア\u0301")
    rows = [(f"<script>alert({i})</script> 🅿️ {{{{7*7}}}} ｶﾞ", kinds[i % 2]) for i in range(40)]
    owner.get("/start").send("/start", files={"file": ("<b>x</b>.csv", table(rows))})
    assert "<script>alert" not in owner.page.text
    assert "<img" not in owner.page.text
    assert "<b>" not in owner.page.text
    owner.send(text="本文", label="分類", name='"><script>', rungs="words", target_error="0.05")
    assert (owner.page.status_code, "<script>alert" in owner.page.text) == (422, False)


def test_another_business_sees_nothing(app, shop, inn, clinic, owner):
    look = owner.get("/start").send("/start", files={"file": ("a.csv", table(messages(60)))}).path
    other = signed_in(app, shop, clinic, mail="b@example.jp")
    for path in (look, look + "/cost", look.replace("start", "work"), look.replace("start", "work") + "/events"):
        assert other.get(path).page.status_code == 404, path
    other.get("/")
    for path in (look, look + "/run", look.replace("start", "work") + "/cancel"):
        other.get("/").send(path, text="本文", label="分類", name="a")
        assert other.page.status_code == 404, path
    assert uploads(shop, inn) != []
    other.client.cookies.set("machikoba-business", inn.id)
    assert "Minato" not in other.get("/").text


@pytest.mark.parametrize("role", ["viewer", "staff"])
def test_only_an_owner_makes_and_invites(app, shop, inn, role):
    visitor = signed_in(app, shop, inn, role)
    for path in ("/start", "/people"):
        assert visitor.get(path).page.status_code == 403
    for path in ("/people/invite", "/keys"):
        visitor.get("/").send(path, role="owner", name="k")
        assert visitor.page.status_code == 403
    assert visitor.get("/bundles/inquiries").page.status_code == 200
    visitor.get("/bundles/inquiries/try").send(text="駐車場はありますか")
    assert ("The past messages most like it" in visitor.text) == (role == "staff")


def test_a_stranger_comes_to_the_door_and_back(stranger, shop, inn, app):
    signed_in(app, shop, inn)
    stranger.get("/people")
    assert (stranger.path, stranger.heading) == ("/sign-in", "Sign in")
    assert stranger.page.url.params["then"] == "/people"
    stranger.send("/sign-in", then="/people", mail="aoki@example.jp", password="wrong wrong wrong")
    assert stranger.page.status_code == 401
    assert 'value="aoki@example.jp"' in stranger.page.text
    stranger.send("/sign-in", then="/people", mail="aoki@example.jp", password=PASSWORD)
    assert stranger.path == "/people"
    stranger.send("/sign-out")
    assert stranger.get("/people").path == "/sign-in"


@pytest.mark.parametrize("then", ["//evil.example", "https://evil.example/", "/\\evil.example", "javascript:alert(1)", "x"])
def test_nobody_is_sent_elsewhere(stranger, shop, inn, app, then):
    signed_in(app, shop, inn)
    stranger.get("/sign-in").send("/sign-in", then=then, mail="aoki@example.jp", password=PASSWORD)
    assert (stranger.page.url.host, stranger.path) == ("testserver", "/")
    stranger.client.follow_redirects = False
    assert stranger.client.get("/language/ja", params={"then": then}).headers["location"] == "/"


def test_what_was_typed_outlives_the_sign_in(owner, shop, inn):
    owner.get("/bundles/inquiries/try")
    with shop.database.writing() as session:
        for one in session.scalars(select(people.SignIn)):
            one.expires_at = now() - timedelta(seconds=1)
    owner.send("/bundles/inquiries/try", text="駐車場は \"何台\" まで <停められますか>")
    assert owner.page.status_code == 401
    assert "What you typed is not lost" in owner.text
    kept = dict(zip(re.findall(r'name="kept_name" value="([^"]*)"', owner.page.text),
                    map(html.unescape, re.findall(r'name="kept_value" value="([^"]*)"', owner.page.text)), strict=True))
    assert kept == {"text": "駐車場は \"何台\" まで <停められますか>"}
    owner.send("/sign-in", then="/bundles/inquiries/try", mail="aoki@example.jp", password=PASSWORD,
               kept_name="text", kept_value=kept["text"])
    assert owner.heading == "You are signed in again"
    owner.send("/bundles/inquiries/try", text=kept["text"])
    assert "It says" in owner.text


def test_a_form_of_another_page_changes_nothing(owner, shop):
    owner.get("/people").send("/keys", csrf="0" * 32, name="k")
    assert owner.page.status_code == 403
    owner.send("/people/invite", csrf="", role="owner")
    assert owner.page.status_code == 403
    with shop.database.reading() as session:
        assert session.query(people.Key).filter_by(name="k", role="owner").count() == 0


def test_the_consoles_link(client, shop, app):
    visitor = Visitor(client)
    with shop.database.writing() as session:
        people.add_business(session, "Minato Inn", "console")
    assert visitor.get("/open?key=local_x").page.status_code == 401
    assert visitor.get("/open").page.status_code == 401
    shop.local = "local_secret"
    assert visitor.get("/open?key=local_secret").heading == "Minato Inn"
    assert "Nobody has an account yet" in visitor.text
    visitor.get("/people").send("/people/invite", role="owner")
    assert visitor.heading == "Open your account"
    token = re.search(r'name="token" value="([^"]*)"', visitor.page.text)[1]
    visitor.send("/account", token=token, mail="c@example.jp", name="千葉", password=PASSWORD)
    assert visitor.path == "/"
    assert "Nobody has an account yet" not in visitor.text
    late = Visitor(TestClient(app, raise_server_exceptions=False))
    assert late.get("/open?key=local_secret").page.status_code == 401, "from the first account on the link opens nothing"


def test_people_and_keys(owner, app):
    owner.get("/people").send("/people/invite", role="staff")
    link = html.unescape(re.search(r'value="(http[^"]*/account[^"]*)"', owner.page.text)[1])
    other = Visitor(TestClient(app, raise_server_exceptions=False)).get(link.replace("http://testserver", ""))
    token = parse_qs(urlsplit(link).query)["token"][0]
    other.send("/account", token=token, mail="staff@example.jp", name="馬場", password="short")
    assert other.page.status_code == 422
    assert 'value="馬場"' in other.page.text, "nothing typed is lost"
    other.send("/account", token=token, mail="staff@example.jp", name="馬場", password=PASSWORD)
    assert other.path == "/"
    owner.get("/people").send("/keys", name="受付のプログラム")
    assert re.search(r'value="mk_[^"]+"', owner.page.text)
    owner.get("/people")
    assert not re.search(r'value="mk_[^"]+"', owner.page.text), "shown this once"
    key = re.search(r'action="(/keys/[0-9a-f]{32}/end)"', owner.page.text)[1]
    owner.send(key)
    assert key not in owner.page.text
    mine = next(row for row in owner.page.text.split("<tr>") if "aoki@example.jp" in row)
    owner.send(re.search(r'action="(/people/[0-9a-f]{32}/role)"', mine)[1], role="")
    assert owner.page.status_code == 409, "a business keeps an owner"


def test_a_workbook_with_macros_and_links_to_others_is_read_as_it_stands(owner, shop, inn):
    """Macros are not run and links not followed: what a cell showed when it was saved counts."""
    book, packed = Workbook(), io.BytesIO()
    book.active.append(["本文", "分類"])
    for text, label in messages(60):
        book.active.append([text, label])
    book.save(packed)
    made = io.BytesIO()
    with zipfile.ZipFile(packed) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("sheet1.xml"):  # the label of the first message comes from another book
                content = re.sub(rb'<c r="B2"[^>]*>.*?</c>', b'<c r="B2" t="str"><f>[1]Sheet1!A1</f><v>parking</v></c>', content)
            new.writestr(name, content)
        new.writestr("xl/vbaProject.bin", b"\xd0\xcf\x11\xe0 macro")
        new.writestr("xl/externalLinks/_rels/externalLink1.xml.rels", '<Relationships xmlns="http://schemas.openxmlformats.org/'
                     'package/2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument/'
                     '2006/relationships/externalLinkPath" Target="http://127.0.0.1:9/other.xlsx" TargetMode="External"/>'
                     '</Relationships>')
    owner.get("/start").send("/start", files={"file": ("受付.xlsm", made.getvalue())})
    assert owner.heading == "受付.xlsm"
    assert "60 messages were read" in owner.text
    assert "4 kinds" in owner.text


def test_a_full_disk_at_the_start_is_told_and_leaves_nothing(owner, shop, inn, monkeypatch):
    def full(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("machikoba.web.tasks.shutil.copyfileobj", full)
    owner.get("/start").send("/start", files={"file": ("a.csv", table(messages(60)))})
    assert owner.page.status_code == 507
    assert "The disk of the server is full." in owner.text
    assert str(shop.home) not in owner.page.text
    assert uploads(shop, inn) == []
    monkeypatch.undo()
    assert owner.get("/start").send("/start", files={"file": ("a.csv", table(messages(60)))}).heading == "a.csv"


def test_drafts_that_nobody_begins_go(owner, shop, inn):
    owner.get("/start").send("/start", files={"file": ("a.csv", table(messages(60)))})
    sweep(shop.database, shop.home)
    assert len(uploads(shop, inn)) == 1, "its file stays as long as it may be begun"
    with shop.database.writing() as session:
        session.scalars(select(Job)).one().created_at = now() - timedelta(days=jobs.DRAFT_DAYS, seconds=1)
    path = shop.home / "businesses" / inn.id / "uploads" / uploads(shop, inn)[0]
    os.utime(path, (0, 0))
    sweep(shop.database, shop.home)
    assert uploads(shop, inn) == []
    assert owner.get("/start/" + "0" * 32).page.status_code == 404


@pytest.mark.parametrize("language", ["ja", "en"])
def test_every_page_is_whole_small_and_of_this_server_alone(owner, shop, language):
    look = owner.get("/start").send("/start", files={"file": ("a.csv", table(messages(60)))}).path
    owner.get(f"/language/{language}?then=/")
    for path in (*PAGES, look, "/bundles/inquiries", "/bundles/inquiries/try", "/sign-in", "/account", "/nothing-here"):
        page = owner.get(path).page
        assert f'<html lang="{language}">' in page.text, path
        assert len(re.findall("<h1", page.text)) == 1, path
        assert len(page.content) < 150 << 10, path
        assert not re.search(r"(src|href|action)=\"(?!/|#|\?)", page.text), path
        assert not re.search(r"<script(?![^>]* src=)|<style|\son[a-z]+=|style=", page.text), path
        assert "script-src 'self'" in page.headers["content-security-policy"], path
        for asset in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
            assert owner.client.get(asset).status_code == 200
    assert owner.client.get("/static/..%2fapp.py").status_code == 404


def test_the_language_is_changed_where_one_is_also_after_a_form(owner):
    owner.get("/desk/inquiries/all?state=open").send("/desk/inquiries/assign/" + "0" * 32, person="")
    assert owner.page.status_code == 409
    (link,) = re.findall(r'href="(/language/[^"]+)"', owner.page.text)
    assert owner.get(html.unescape(link)).page.status_code == 200
    assert owner.path == "/desk/inquiries/all"
    owner.client.headers["Referer"] = "https://elsewhere.example/desk"
    owner.page = owner.client.post("/desk/inquiries/assign/1", headers={"Accept": "text/html"})
    assert "elsewhere" not in owner.page.text


def test_an_error_is_a_page_for_people_and_json_for_programs(owner, inn):
    assert owner.get("/bundles/none").page.headers["content-type"].startswith("text/html")
    assert owner.page.status_code == 404
    told = owner.client.get("/bundles/none", headers={"Accept": "application/json"})
    assert told.json()["error"]["code"] == "bundle_unknown"
    told = owner.client.get("/v1/bundles/none/corrections", headers={"Accept": "text/html", **inn.staff})
    assert told.json()["error"]["code"]


def test_what_a_failed_work_quotes_is_for_staff(app, shop, inn, owner):
    with shop.database.writing() as session:
        job = jobs.add(session, inn.id, "tune", {"name": "a", "filename": "a.csv"}, "person:1")
        job.state, job.error = "failed", {"code": "label_too_small", "message": "Too few.", "expected": "5",
                                          "found": "山田様の件", "next": "machikoba tune --help"}
        path = f"/work/{job.id}"
    assert "山田様の件" in owner.get(path).text
    assert "machikoba tune" not in owner.text, "no words of the command line"
    viewer = signed_in(app, shop, inn, "viewer", "v@example.jp").get(path)
    assert "Too few." in viewer.text
    assert "山田様の件" not in viewer.page.text


def test_problems_speak_to_people(owner, app):
    stranger = Visitor(TestClient(app, raise_server_exceptions=False)).get("/open?key=local_x")
    assert "This link is no longer good" in stranger.text
    for visitor in (stranger, owner.get("/bundles/none"), owner.get("/none")):
        assert not re.search(r"/v1/|Bearer|--[a-z]", visitor.text)
