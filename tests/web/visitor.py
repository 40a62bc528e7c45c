"""Somebody at a browser without a script."""
from __future__ import annotations

import html
import re
from urllib.parse import urlsplit

from starlette.testclient import TestClient

from machikoba.store import people

PASSWORD = "yama-kawa-umi-sora"


class Visitor:
    """Somebody at a browser: follows links, fills in forms, is sent on."""

    def __init__(self, client):
        self.client, self.page = client, None

    def get(self, path):
        self.page = self.client.get(path, headers={"Accept": "text/html"})
        return self

    def send(self, path=None, files=None, csrf=None, **form):
        found = re.search(r'name="csrf" (?:value|content)="([^"]*)"', self.page.text) if self.page is not None else None
        form["csrf"] = csrf if csrf is not None else found[1] if found else ""
        path = path or urlsplit(str(self.page.url)).path
        headers = {"Accept": "text/html"} | ({"Referer": str(self.page.url)} if self.page is not None else {})
        self.page = self.client.post(path, data=form, files=files, headers=headers)
        return self

    @property
    def path(self):
        return self.page.url.path

    @property
    def text(self):
        return html.unescape(re.sub(r"<[^>]+>", " ", self.page.text))

    @property
    def heading(self):
        return html.unescape(re.search(r"<h1[^>]*>(.*?)</h1>", self.page.text, re.S)[1])


def signed_in(app, shop, business, role="owner", mail="aoki@example.jp"):
    with shop.database.writing() as session:
        token = people.invite(session, business.id, role, "console")
    visitor = Visitor(TestClient(app, raise_server_exceptions=False)).get(f"/account?token={token}")
    visitor.send("/account", token=token, mail=mail, name="青木", password=PASSWORD)
    assert visitor.path == "/"
    return visitor
