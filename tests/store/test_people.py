"""Who comes in, who does not, and what nobody can find out."""
from __future__ import annotations

from datetime import timedelta

import pytest
from argon2 import PasswordHasher
from sqlalchemy import inspect, select, text, update

from machikoba.errors import AccessError
from machikoba.store import people
from machikoba.store.tables import Attempt, Business, Entry, Invitation, Key, Membership, Person, SignIn, now

PASSWORD = "yamakawa-umi-sora"


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Hashes that cost little; the real cost has a test of its own."""
    monkeypatch.setattr(people, "_hasher", lambda: PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


def join(database, business, role="owner", mail="a@example.jp", password=PASSWORD):
    with database.writing() as session:
        token = people.invite(session, business, role, "console")
        return people.accept(session, token, mail, "Aoki", password, "127.0.0.1").id


def enter(database, mail="a@example.jp", password=PASSWORD, address="127.0.0.1"):
    with database.writing() as session:
        return people.sign_in(session, mail, password, address, "Firefox")


def refused(code, action, *args, **options):
    with pytest.raises(AccessError) as caught:
        action(*args, **options)
    assert caught.value.code == code
    return caught.value


def test_the_first_owner_comes_in_by_the_newest_token_only(database):
    with database.writing() as session:
        old = people.first_owner(session, "Inn")
    with database.writing() as session:
        new = people.first_owner(session, "Inn")
        assert len(session.scalars(select(Business)).all()) == 1
    for token, allowed in ((old, False), (new, True), (new, False)):
        with database.writing() as session:
            if allowed:
                people.accept(session, token, "a@example.jp", "Aoki", PASSWORD, "127.0.0.1")
            else:
                refused("invitation_void", people.accept, session, token, "b@example.jp", "B", PASSWORD, "127.0.0.1")
    with database.writing() as session:
        assert people.first_owner(session, "Inn") is None
        assert session.scalars(select(Membership)).one().role == "owner"


def test_an_old_invitation_is_void(database, business, monkeypatch):
    with database.writing() as session:
        token = people.invite(session, business, "staff", "console")
    later = now() + timedelta(days=people.INVITATION_DAYS, seconds=1)
    monkeypatch.setattr(people, "now", lambda: later)
    with database.writing() as session:
        refused("invitation_void", people.accept, session, token, "a@example.jp", "A", PASSWORD, "127.0.0.1")


@pytest.mark.parametrize(("mail", "password", "code"), [
    ("no mail", PASSWORD, "mail_unusable"), ("a@b\x00.jp", PASSWORD, "mail_unusable"),
    ("a@example.jp", "short", "password_unusable"), ("a@example.jp", "x" * 1_000, "password_unusable")])
def test_what_cannot_be_an_account(database, business, mail, password, code):
    refused(code, join, database, business, mail=mail, password=password)
    with database.reading() as session:
        assert session.scalars(select(Person)).all() == []
        assert all(found.used_at is None for found in session.scalars(select(Invitation)))


def test_a_sign_in_opens_until_it_is_ended_or_old(database, business, monkeypatch):
    person = join(database, business)
    first, second = enter(database), enter(database, mail=" A@Example.jp ")
    with database.writing() as session:
        entry, found = people.signed_in(session, first)
        assert (found.id, entry.device) == (person, "Firefox")
        assert people.visitor(session, found, None) == people.Visitor(f"person:{person}", business, "owner", True)
        assert people.end_sign_ins(session, person, "person:x", only=entry.id) == 1
        assert people.signed_in(session, first) is None
        assert people.signed_in(session, second)
        assert people.signed_in(session, "guessed") is None
    later = now() + timedelta(days=people.SIGN_IN_DAYS, seconds=1)
    monkeypatch.setattr(people, "now", lambda: later)
    with database.reading() as session:
        assert people.signed_in(session, second) is None


def test_a_wrong_password_an_unknown_mail_and_a_disabled_person_look_alike(database, business):
    person = join(database, business)
    join(database, business, mail="c@example.jp")
    with database.writing() as session:
        session.scalars(select(Person).where(Person.mail == "c@example.jp")).one().disabled_at = now()
    told = [refused("wrong_password", enter, database, mail=mail, password=password).to_dict()
            for mail, password in (("a@example.jp", "wrong-wrong"), ("b@example.jp", PASSWORD), ("c@example.jp", PASSWORD))]
    assert told[0] == told[1] == told[2]
    with database.reading() as session:
        assert len(session.scalars(select(Attempt)).all()) == 6
        assert person not in str([row.subject for row in session.scalars(select(Attempt))])


def test_guessing_is_slowed_for_a_mail_and_for_an_address(database, business, monkeypatch):
    join(database, business)
    for _ in range(people.MOST_FAILURES["mail"]):
        refused("wrong_password", enter, database, password="wrong-wrong", address="10.0.0.1")
    assert refused("too_many_attempts", enter, database, address="10.0.0.2").retry_after_seconds > 0
    for i in range(people.MOST_FAILURES["address"]):
        refused("wrong_password", enter, database, mail=f"{i}@example.jp", address="10.0.0.9")
    refused("too_many_attempts", enter, database, mail="new@example.jp", address="10.0.0.9")
    later = now() + timedelta(minutes=people.THROTTLE_MINUTES, seconds=1)
    monkeypatch.setattr(people, "now", lambda: later)
    assert enter(database, address="10.0.0.2")


def test_a_clock_that_was_wrong_locks_nobody_out(database, business):
    """Wrong attempts noted a year ahead, before somebody set the clock right, do not count for a year."""
    join(database, business)
    for _ in range(people.MOST_FAILURES["mail"]):
        refused("wrong_password", enter, database, password="wrong-wrong")
    refused("too_many_attempts", enter, database)
    with database.writing() as session:
        session.execute(update(Attempt).values(at=now() + timedelta(days=365)))
    assert enter(database)


def test_a_password_can_be_no_guess_through_an_invitation(database, business):
    join(database, business)
    with database.writing() as session:
        token = people.invite(session, business, "staff", "person:x")
    for attempt in range(people.MOST_FAILURES["mail"] + 1):
        code = "wrong_password" if attempt < people.MOST_FAILURES["mail"] else "too_many_attempts"
        with database.writing() as session:
            refused(code, people.accept, session, token, "a@example.jp", "A", "guess-guess", "10.0.0.1")


def test_a_new_password_signs_out_everywhere(database, business):
    join(database, business)
    token = enter(database)
    with database.writing() as session:
        _entry, person = people.signed_in(session, token)
        refused("wrong_password", people.change_password, session, person, "wrong-wrong", "another-password")
        people.change_password(session, person, PASSWORD, "another-password")
    with database.reading() as session:
        assert people.signed_in(session, token) is None
    assert enter(database, password="another-password")


def test_the_last_owner_stays(database, business):
    first, second = join(database, business), join(database, business, "staff", "b@example.jp")
    with database.writing() as session:
        refused("last_owner", people.change_role, session, business, first, "staff", "person:x")
        refused("last_owner", people.change_role, session, business, first, None, "person:x")
        refused("person_unknown", people.change_role, session, business, "0" * 32, "staff", "person:x")
        people.change_role(session, business, second, "owner", f"person:{first}")
        people.change_role(session, business, first, None, f"person:{second}")
        refused("business_unknown", people.visitor, session, session.get(Person, first), business)
        refused("business_unknown", people.visitor, session, session.get(Person, second), "0" * 32)


@pytest.mark.parametrize(("role", "needed", "allowed"), [
    ("owner", "staff", True), ("staff", "staff", True), ("viewer", "staff", False), ("staff", "owner", False)])
def test_roles(role, needed, allowed):
    visitor = people.Visitor("key:1", "b", role)
    if allowed:
        visitor.must_be(needed)
    else:
        refused("not_allowed", visitor.must_be, needed)


def test_keys(database, business, monkeypatch):
    with database.writing() as session:
        other = people.add_business(session, "Dental clinic", "console").id
        key, secret = people.add_key(session, business, "desk", "staff", "person:1", days=1)
        _key, lasting = people.add_key(session, business, "line", "staff", "person:1")
        assert people.key_visitor(session, secret) == people.Visitor(f"key:{key.id}", business, "staff")
        assert not people.end_key(session, other, key.id, "person:2"), "another business's key"
        refused("key_unknown", people.key_visitor, session, secret + "x")
    moment = now()
    monkeypatch.setattr(people, "now", lambda: moment + timedelta(days=1, seconds=1))
    with database.writing() as session:
        refused("key_expired", people.key_visitor, session, secret)
        assert people.end_key(session, business, key.id, "person:1")
        refused("key_unknown", people.key_visitor, session, secret)
        assert people.key_visitor(session, lasting)


def test_no_secret_lies_in_the_store(database, business):
    person = join(database, business)
    cookie = enter(database)
    with database.writing() as session:
        invitation = people.invite(session, business, "staff", f"person:{person}")
        _key, secret = people.add_key(session, business, "desk", "staff", f"person:{person}")
    with database.reading() as session:
        everything = "".join(str(row) for table in inspect(session.connection()).get_table_names()
                             for row in session.execute(text(f"SELECT * FROM {table}")))
    for hidden in (PASSWORD, cookie, invitation, secret):
        assert hidden not in everything
    with database.reading() as session:
        told = "".join(f"{entry.facts}{entry.subject}{entry.actor}" for entry in session.scalars(select(Entry)))
        assert "example.jp" not in told
        assert "Aoki" not in told
        assert session.scalars(select(SignIn)).one().token != cookie
        assert session.scalars(select(Key)).one().start == secret[:8]


def test_passwords_are_hashed_as_the_rfc_advises():
    made = PasswordHasher().hash(PASSWORD)
    assert made.startswith("$argon2id$")
    assert PasswordHasher().memory_cost >= 64 * 1_024
