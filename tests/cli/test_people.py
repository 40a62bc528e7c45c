"""Keys, invitations and businesses at the console."""
from __future__ import annotations

import json

import pytest

from machikoba.store import people
from machikoba.store.database import here
from tests.cli.test_cli import run


def test_each_business_has_keys_and_people_of_its_own():
    first = json.loads(run("key", "desk", "--json").stdout)
    added = json.loads(run("businesses", "--add", "歯科医院", "--json").stdout)
    second = json.loads(run("key", "desk", "--business", "歯科医院", "--role", "viewer", "--json").stdout)
    assert (first["business"], second["business"]) == ("machikoba", "歯科医院")
    invited = json.loads(run("invite", "--business", added["id"], "--role", "staff", "--json").stdout)
    with here().writing() as session:
        visitor = people.key_visitor(session, second["key"])
        assert (visitor.business_id, visitor.role) == (added["id"], "viewer")
        assert people.key_visitor(session, first["key"]).business_id != added["id"]
        for token, mail, role in ((added["token"], "a@example.jp", "owner"), (invited["token"], "b@example.jp", "staff")):
            person = people.accept(session, token, mail, "A", "yama-kawa-umi", "console")
            found = people.visitor(session, person, None)
            assert (found.business_id, found.role) == (added["id"], role)
    listed = json.loads(run("businesses", "--json").stdout)["businesses"]
    assert [(one["name"], one["people"], one["keys"]) for one in listed] == [("machikoba", 0, 1), ("歯科医院", 2, 1)]
    plain = run("businesses").stdout
    assert "歯科医院: 2 people, 1 keys" in plain
    assert added["token"] not in plain


@pytest.mark.parametrize(("arguments", "code"), [
    (("key", "desk", "--business", "nobody's"), "business_not_here"), (("invite", "--business", "nobody's"), "business_not_here"),
    (("invite", "--role", "king"), "option_wrong"), (("key", "desk", "--role", "owner"), "option_wrong"),
    (("businesses", "--add", " "), "business_name"), (("serve", "--behind-proxy", "*"), "option_wrong")])
def test_what_cannot_be(arguments, code):
    done = run(*arguments, "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == code
