"""Several businesses on one installation, as whoever looks after it sees them."""
from __future__ import annotations

import pytest

from machikoba.errors import OptionError
from machikoba.store import businesses, people


def test_added_found_and_listed(database, business):
    with database.writing() as session:
        clinic = businesses.add(session, " 歯科医院 ", "console")
        people.add_key(session, clinic.id, "desk", "staff", "console")
        _key, ended = people.add_key(session, clinic.id, "old", "staff", "console")
        people.end_key(session, clinic.id, _key.id, "console")
    with database.reading() as session:
        assert businesses.find(session, None).id == business
        assert businesses.find(session, "歯科医院").id == businesses.find(session, clinic.id).id == clinic.id
        first, second = businesses.listed(session)
    assert (first["id"], first["name"], first["keys"]) == (business, "Minato Inn", 0)
    assert (second["id"], second["name"], second["people"], second["keys"], second["bundles"]) == (clinic.id, "歯科医院", 0, 1, 0)
    assert ended


def test_without_any_there_is_no_first(database):
    with database.reading() as session:
        assert businesses.find(session, None) is None
        assert businesses.listed(session) == []


@pytest.mark.parametrize(("name", "code"), [("", "business_name"), ("  ", "business_name"), ("a" * 101, "business_name"),
                                            ("a\x00b", "business_name"), ("a\nb", "business_name"), ("\ud800", "business_name"),
                                            ("Minato Inn", "business_taken"), (" Minato Inn ", "business_taken")])
def test_names_that_cannot_be_used(database, business, name, code):
    with database.writing() as session, pytest.raises(OptionError) as caught:
        businesses.add(session, name, "console")
    assert caught.value.code == code


def test_which_one_is_meant_must_be_clear(database, business):
    with database.writing() as session:
        twin = people.add_business(session, "Minato Inn", "console")
    with database.reading() as session:
        for name in ("Minato Inn", "nobody's"):
            with pytest.raises(OptionError) as caught:
                businesses.find(session, name)
            assert caught.value.code == "business_not_here"
        assert businesses.find(session, twin.id).id == twin.id


def test_a_restart_voids_only_the_first_owners_old_token(database, monkeypatch):
    with database.writing() as session:
        people.first_owner(session, "Inn")
        clinic = businesses.add(session, "Clinic", "console")
        token = people.invite(session, clinic.id, "owner", "console")
        people.first_owner(session, "Inn")
    with database.writing() as session:
        person = people.accept(session, token, "b@example.jp", "B", "yama-kawa-umi", "console")
        assert people.visitor(session, person, None).business_id == clinic.id
