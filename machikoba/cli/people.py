"""The commands that let people and programs in."""
from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from machikoba.cli.app import Json, app
from machikoba.cli.output import result
from machikoba.language import _

if TYPE_CHECKING:
    from machikoba.store.database import Database

OfBusiness = Annotated[str | None, typer.Option("--business", metavar="NAME",
                                                help=_("Name or id of the business (default: the first)."))]
CONSOLE = "console"  # who did it, in the audit
FIRST = "machikoba"  # what the first business is called until somebody names it


@app.command(help=_("List the businesses of this installation, or add one."))
def businesses(
    add: Annotated[str | None, typer.Option(metavar="NAME", help=_("Add a business, and invite its owner."))] = None,
    json: Json = False,
) -> None:
    from machikoba.store import businesses, people

    with _store().writing() as session:
        if add is not None:
            made = businesses.add(session, add, CONSOLE)
            token = people.invite(session, made.id, "owner", CONSOLE)
            result({"id": made.id, "name": made.name, "token": token},
                   [_("business {name}").format(name=made.name), *_invited(token)])
            return
        found = businesses.listed(session)
    lines = [_("{name}: {people} people, {keys} keys, {bundles} bundles ({id})").format(**one) for one in found]
    result({"businesses": found}, lines or [_("No business yet. `machikoba serve` makes the first.")])


@app.command(help=_("Invite a person into a business, also when its owner can no longer come in."))
def invite(
    role: Annotated[str, typer.Option(help=_("owner, staff or viewer."))] = "owner", business: OfBusiness = None,
    json: Json = False,
) -> None:
    from machikoba.store import businesses, people

    _check_role(role, ("owner", "staff", "viewer"))
    with _store().writing() as session:
        found = businesses.find(session, business) or people.add_business(session, FIRST, CONSOLE)
        token = people.invite(session, found.id, role, CONSOLE)
    result({"business": found.name, "role": role, "token": token}, _invited(token))


@app.command(help=_("Make a key with which a program may ask the server."))
def key(
    name: Annotated[str, typer.Argument(help=_("What the key is for."), show_default=False)],
    role: Annotated[str, typer.Option(help=_("staff or viewer."))] = "staff",
    days: Annotated[int | None, typer.Option(help=_("Days until it ends (default: never)."))] = None,
    business: OfBusiness = None,
    json: Json = False,
) -> None:
    from machikoba.store import businesses, people

    _check_role(role, ("staff", "viewer"))
    with _store().writing() as session:
        found = businesses.find(session, business) or people.add_business(session, FIRST, CONSOLE)
        made, secret = people.add_key(session, found.id, name, role, CONSOLE, days)
    result({"id": made.id, "key": secret, "business": found.name},
           [_("key      {key}").format(key=secret), _("It is shown this once. Keep it like a password.")])


def _store() -> Database:
    from machikoba.store.database import here
    from machikoba.store.migrations import upgrade

    database = here()
    upgrade(database)
    return database


def _invited(token: str) -> list[str]:
    from machikoba.store.people import INVITATION_DAYS

    return [_("invited  open an account with this token, good for {n} days: {token}").format(n=INVITATION_DAYS, token=token),
            _("It is shown this once. Keep it like a password.")]


def _check_role(role: str, roles: tuple[str, ...]) -> None:
    from machikoba.errors import OptionError

    if role not in roles:
        raise OptionError("option_wrong", _("The value of --{name} cannot be used.").format(name="role"),
                          expected=", ".join(roles), found=role, next=_("Choose one of these."))
