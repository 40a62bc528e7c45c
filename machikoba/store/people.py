"""Who may come in: accounts by invitation, sign-ins, keys, and what each role may do.

Secrets are random, shown once and kept as SHA-256; passwords, which people choose, as Argon2id.
"""
from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from machikoba.errors import AccessError
from machikoba.language import _
from machikoba.store import audit
from machikoba.store.tables import Attempt, Business, Invitation, Key, Membership, Person, SignIn, now

ROLES = ("viewer", "staff", "owner")  # each may do what those before it may
INVITATION_DAYS, SIGN_IN_DAYS = 7, 14
SEEN_EVERY = timedelta(minutes=5)  # how exactly the last use of a sign-in is noted
LEAST_PASSWORD, MOST_PASSWORD = 10, 200  # characters
THROTTLE_MINUTES = 15
MOST_FAILURES = {"mail": 5, "address": 30}  # within that time
KEY_PREFIX = "mk_"
MAIL = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,189}")


@dataclass(frozen=True)
class Visitor:
    """Who asks, and for which business. who: an id such as "person:…" or "key:…"; signed_in: a person, not a program."""

    who: str
    business_id: str
    role: str
    signed_in: bool = False

    @property
    def person_id(self) -> str:
        """The person's id; "" for a program and for whoever started the server."""
        kind, _colon, found = self.who.partition(":")
        return found if kind == "person" else ""

    def must_be(self, role: str) -> None:
        """Raises AccessError, not_allowed, for a lower role."""
        if ROLES.index(self.role) < ROLES.index(role):
            raise AccessError("not_allowed", _("Your role does not allow this."), expected=role_name(role),
                              found=role_name(self.role), next=_("Ask the owner of the business."))


def role_name(role: str) -> str:
    """What a role is called in the user's language."""
    return {"viewer": _("viewer"), "staff": _("staff"), "owner": _("owner")}[role]


def invite(session: Session, business_id: str, role: str, made_by: str) -> str:
    """A new invitation's token, which is kept nowhere else."""
    assert role in ROLES
    token = secrets.token_urlsafe(32)
    made = Invitation(business_id=business_id, role=role, token=digest(token), made_by=made_by,
                      expires_at=now() + timedelta(days=INVITATION_DAYS))
    session.add(made)
    session.flush()
    audit.record(session, made_by, "invitation.add", f"invitation:{made.id}", business_id, {"role": role})
    return token


def first_owner(session: Session, business_name: str) -> str | None:
    """The token for the first owner's account, made anew at every start until it is used; None once somebody is here."""
    if session.scalar(select(func.count()).select_from(Person)):
        return None
    business = session.scalars(select(Business).order_by(Business.created_at).limit(1)).first()
    if business is None:
        business = add_business(session, business_name, "console")
    for old in session.scalars(select(Invitation).where(Invitation.made_by == "console", Invitation.used_at.is_(None),
                                                        Invitation.business_id == business.id, Invitation.role == "owner")):
        old.expires_at = now()
    return invite(session, business.id, "owner", "console")


def add_business(session: Session, name: str, made_by: str) -> Business:
    """A further business, with nobody in it yet."""
    business = Business(name=name)
    session.add(business)
    session.flush()
    audit.record(session, made_by, "business.add", f"business:{business.id}", business.id)
    return business


def must_look_after(session: Session, visitor: Visitor) -> None:
    """Raises AccessError, not_allowed, for all but owners of the first business, who installed the server and look after it."""
    visitor.must_be("owner")
    if session.scalars(select(Business.id).order_by(Business.created_at).limit(1)).first() != visitor.business_id:
        raise AccessError("not_allowed", _("Only whoever looks after the server may do this."),
                          expected=_("an owner of the first business on this server"), found="",
                          next=_("Ask whoever looks after the server."))


def accept(session: Session, token: str, mail: str, name: str, password: str, address: str) -> Person:
    """Opens an account, or lets somebody who has one into a further business. Raises AccessError; see `sign_in`."""
    found = session.scalars(select(Invitation).where(Invitation.token == digest(token)).with_for_update()).first()
    if found is None or found.used_at is not None or found.expires_at <= now():
        raise AccessError("invitation_void", _("This invitation is no longer valid."),
                          expected=_("an unused link, at most {n} days old").format(n=INVITATION_DAYS), found="",
                          next=_("Ask whoever invited you for a new one."))
    mail = _mail(mail)
    if session.scalars(select(Person.id).where(Person.mail == mail)).first():
        person = _known(session, mail, password, address)
    else:
        _check_password(password)
        person = Person(mail=mail, name=name.strip() or mail, password=_hasher().hash(password))
        session.add(person)
        session.flush()
    member = session.get(Membership, (person.id, found.business_id))
    if member is None:
        session.add(Membership(person_id=person.id, business_id=found.business_id, role=found.role))
    else:
        member.role = max(member.role, found.role, key=ROLES.index)
    found.used_at = now()
    audit.record(session, f"person:{person.id}", "invitation.accept", f"invitation:{found.id}", found.business_id)
    return person


def sign_in(session: Session, mail: str, password: str, address: str, device: str) -> str:
    """The token of a new sign-in. Raises AccessError: wrong_password (whatever was wrong) or too_many_attempts.

    What fails is counted and committed, so nothing else may be pending in `session`.
    """
    return open_sign_in(session, _known(session, mail.strip().lower(), password, address), device)


def open_sign_in(session: Session, person: Person, device: str) -> str:
    """The token of a new sign-in of somebody whose password was checked."""
    token = secrets.token_urlsafe(32)
    made = SignIn(person_id=person.id, token=digest(token), device=device[:200], expires_at=now() + timedelta(days=SIGN_IN_DAYS))
    session.add(made)
    session.flush()
    audit.record(session, f"person:{person.id}", "sign_in.add", f"sign_in:{made.id}")
    return token


def _known(session: Session, mail: str, password: str, address: str) -> Person:
    """Who has this password. Raises AccessError, having committed that it failed."""
    subjects = {"mail": digest(f"mail {mail}"), "address": digest(f"address {address}")}
    within = timedelta(minutes=THROTTLE_MINUTES)
    recent = Attempt.at.between(now() - within, now() + within)  # what a clock noted that was set back since locks nobody out
    for kind, subject in subjects.items():
        failed = session.scalar(select(func.count()).select_from(Attempt).where(Attempt.subject == subject, recent))
        if (failed or 0) >= MOST_FAILURES[kind]:
            raise _throttled()
    person = session.scalars(select(Person).where(Person.mail == mail)).first()
    # Somebody unknown takes as long as a wrong password: who has an account cannot be found out by the clock.
    if not _fits(person.password if person else _nobody(), password) or person is None or person.disabled_at:
        session.add_all(Attempt(subject=subject) for subject in subjects.values())
        session.execute(delete(Attempt).where(~recent))
        session.commit()
        raise _wrong()
    if _hasher().check_needs_rehash(person.password):
        person.password = _hasher().hash(password)
    session.execute(delete(Attempt).where(Attempt.subject == subjects["mail"]))
    return person


def signed_in(session: Session, token: str) -> tuple[SignIn, Person] | None:
    """Who holds this cookie; None where nobody may with it."""
    found = session.scalars(select(SignIn).where(SignIn.token == digest(token))).first()
    if found is None or found.ended_at is not None or found.expires_at <= now():
        return None
    person = session.get(Person, found.person_id)
    if person is None or person.disabled_at is not None:
        return None
    return found, person


def note_use(session: Session, sign_in_id: str) -> None:
    """Remembers that a sign-in is in use."""
    found = session.get(SignIn, sign_in_id)
    if found is not None:
        found.seen_at = now()


def visitor(session: Session, person: Person, business_id: str | None) -> Visitor:
    """What `person` is in a business: the one named, else the first. Raises AccessError, business_unknown.

    One that there is not and one that the person is not in give the same error.
    """
    wanted = select(Membership).join(Business, Business.id == Membership.business_id).where(Membership.person_id == person.id)
    if business_id is not None:
        wanted = wanted.where(Membership.business_id == business_id)
    member = session.scalars(wanted.order_by(Business.created_at).limit(1)).first()
    if member is None:
        raise AccessError("business_unknown", _("There is no such business for you."), expected=_("one that you belong to"),
                          found="", next=_("Ask its owner for an invitation."))
    return Visitor(f"person:{person.id}", member.business_id, member.role, signed_in=True)


def end_sign_ins(session: Session, person_id: str, actor: str, only: str | None = None) -> int:
    """Signs a person out everywhere, or only where `only` (a sign-in's id) says; how many ended."""
    wanted = select(SignIn).where(SignIn.person_id == person_id, SignIn.ended_at.is_(None))
    ended = session.scalars(wanted.where(SignIn.id == only) if only else wanted).all()
    for one in ended:
        one.ended_at = now()
        audit.record(session, actor, "sign_in.end", f"sign_in:{one.id}")
    return len(ended)


def change_password(session: Session, person: Person, old: str, new: str) -> None:
    """Sets a new password and signs the person out everywhere. Raises AccessError."""
    if not _fits(person.password, old):
        raise _wrong()
    _check_password(new)
    person.password = _hasher().hash(new)
    end_sign_ins(session, person.id, f"person:{person.id}")
    audit.record(session, f"person:{person.id}", "password.change", f"person:{person.id}")


def change_role(session: Session, business_id: str, person_id: str, role: str | None, actor: str) -> None:
    """Gives a member another role, or with None takes them out; they must come in anew. Raises AccessError, last_owner."""
    member = session.get(Membership, (person_id, business_id), with_for_update=True)
    if member is None:
        raise AccessError("person_unknown", _("There is no such person here."), next=_("Look at the list of people."))
    owners = session.scalars(select(Membership).where(Membership.business_id == business_id, Membership.role == "owner")
                             .with_for_update()).all()
    if member.role == "owner" and role != "owner" and len(owners) == 1:
        raise AccessError("last_owner", _("A business must keep an owner."), expected=_("another owner"),
                          found=_("only this one"), next=_("Make somebody else an owner first."))
    if role is None:
        session.delete(member)
    else:
        assert role in ROLES
        member.role = role
    end_sign_ins(session, person_id, actor)
    audit.record(session, actor, "role.change", f"person:{person_id}", business_id, {"role": role})


def add_key(session: Session, business_id: str, name: str, role: str, made_by: str, days: int | None = None) -> tuple[Key, str]:
    """A new key and its secret, which is shown once."""
    assert role in ROLES
    secret = KEY_PREFIX + secrets.token_urlsafe(32)
    key = Key(business_id=business_id, name=name, role=role, start=secret[:8], token=digest(secret), made_by=made_by,
              expires_at=now() + timedelta(days=days) if days else None)
    session.add(key)
    session.flush()
    audit.record(session, made_by, "key.add", f"key:{key.id}", business_id, {"role": role, "days": days})
    return key, secret


def end_key(session: Session, business_id: str, key_id: str, actor: str) -> bool:
    """From now on the key opens nothing; False where there is no such key in this business."""
    key = session.get(Key, key_id)
    if key is None or key.business_id != business_id:
        return False
    if key.ended_at is None:
        key.ended_at = now()
        audit.record(session, actor, "key.end", f"key:{key.id}", business_id)
    return True


def key_visitor(session: Session, secret: str) -> Visitor:
    """Whose key this is. Raises AccessError: key_unknown, key_expired."""
    key = session.scalars(select(Key).where(Key.token == digest(secret))).first()
    if key is None or key.ended_at is not None:
        raise AccessError("key_unknown", _("This key opens nothing."), expected=_("a key that is in use"), found="",
                          next=_("Ask the owner of the business for a key."))
    if key.expires_at is not None and key.expires_at <= now():
        raise AccessError("key_expired", _("This key is no longer valid."), expected="", found=key.expires_at.date().isoformat(),
                          next=_("Ask the owner of the business for a new one."))
    return Visitor(f"key:{key.id}", key.business_id, key.role)


def guarded(session: Session) -> bool:
    """Whether anybody has an account or a key: from then on nobody comes in without."""
    return any(session.scalars(select(column).limit(1)).first() for column in (Person.id, Key.id))


def digest(secret: str) -> str:
    """SHA-256, hexadecimal; enough for what is random and long."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache(maxsize=1)
def _hasher() -> PasswordHasher:
    return PasswordHasher()  # the RFC's second choice: 64 MiB, three passes


@lru_cache(maxsize=1)
def _nobody() -> str:
    return _hasher().hash(secrets.token_urlsafe(16))


def _fits(kept: str, password: str) -> bool:
    try:
        return len(password) <= MOST_PASSWORD and _hasher().verify(kept, password)
    except (Argon2Error, ValueError):
        return False


def _mail(mail: str) -> str:
    mail = mail.strip().lower()
    if not MAIL.fullmatch(mail):
        raise AccessError("mail_unusable", _("This is not a mail address."), expected="name@example.jp", found=mail[:100],
                          next=_("Type the address again."))
    return mail


def _check_password(password: str) -> None:
    if not LEAST_PASSWORD <= len(password) <= MOST_PASSWORD:
        raise AccessError("password_unusable", _("This password cannot be used."),
                          expected=_("{least} to {most} characters").format(least=LEAST_PASSWORD, most=MOST_PASSWORD),
                          found=_("{n} characters").format(n=len(password)), next=_("Choose a longer one, of several words."))


def _wrong() -> AccessError:
    return AccessError("wrong_password", _("The mail address or the password is wrong."), next=_("Type both again."))


def _throttled() -> AccessError:
    error = AccessError("too_many_attempts", _("There were too many wrong attempts."), expected="", found="",
                        next=_("Wait {n} minutes, then try again.").format(n=THROTTLE_MINUTES))
    error.retry_after_seconds = THROTTLE_MINUTES * 60
    return error
