"""The commands that keep what must survive, and take a bundle elsewhere."""
from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from machikoba.cli.app import BundleName, Json, app
from machikoba.cli.output import Mode, progress, result
from machikoba.language import _

PassphraseFile = Annotated[Path | None, typer.Option(
    "--passphrase-file", metavar="PATH", help=_("File whose first line is the passphrase (default: MACHIKOBA_PASSPHRASE)."))]


@app.command(help=_("Put everything that must survive into one file, also while the server runs."))
def backup(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help=_("A new file, or a folder (default: backups in the home)."),
                                                show_default=False)] = None,
    passphrase_file: PassphraseFile = None,
    encrypt: Annotated[bool, typer.Option("--encrypt", help=_("Ask for a passphrase on the terminal."))] = False,
    keep_days: Annotated[int | None, typer.Option(metavar="N", min=1, help=_(
        "Delete it, and those made earlier in the same folder, after N days (default: never)."))] = None,
    json: Json = False,
) -> None:
    from machikoba.cli.verdict import backup_lines
    from machikoba.settings import home
    from machikoba.store import sealed
    from machikoba.store.backup import make
    from machikoba.store.database import here

    passphrase = _given(passphrase_file) or (_asked(twice=True) if encrypt else None)
    with progress() as say:
        made = make(home(), here(), file and file.absolute(), passphrase and sealed.usable(passphrase), keep_days, say=say)
    result(made, backup_lines(made))


@app.command(help=_("Bring a backup back, and check all of it."))
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help=_("A file made by `machikoba backup`."), show_default=False)],
    passphrase_file: PassphraseFile = None,
    replace: Annotated[bool, typer.Option("--replace", help=_("Put aside what is in the home now."))] = False,
    check: Annotated[bool, typer.Option("--check", help=_("Only check the file; change nothing."))] = False,
    json: Json = False,
) -> None:
    from machikoba.cli.verdict import restore_lines
    from machikoba.settings import home
    from machikoba.store.archive import is_sealed
    from machikoba.store.database import here
    from machikoba.store.restore import check as check_only
    from machikoba.store.restore import restore as run

    passphrase = _given(passphrase_file)
    if passphrase is None and is_sealed(file) and sys.stdin.isatty() and not Mode.json:
        passphrase = _asked(twice=False)
    with progress() as say:
        found = (check_only(file, home(), passphrase, say) if check
                 else run(file, home(), here(), passphrase, replace, say))
    result(found, restore_lines(found))


@app.command(help=_("Make a zip file of a bundle for another machine, without past messages."))
def export(bundle: BundleName,
           out: Annotated[Path | None, typer.Option(metavar="FILE", help=_("The zip file (default: in this folder)."))] = None,
           json: Json = False) -> None:
    from machikoba.cli.verdict import export_lines
    from machikoba.pack.bundle import SUFFIX, find_bundle
    from machikoba.pack.export import export as run
    from machikoba.settings import home

    path = find_bundle(bundle, home()).resolve()
    made = run(path, out or Path(f"{path.name.removesuffix(SUFFIX)}.zip"))
    result(made, export_lines(made))


def _given(file: Path | None) -> str | None:
    """The passphrase in `file`, else in the environment. Raises OptionError."""
    from machikoba.errors import OptionError
    from machikoba.store import sealed

    if file is None:
        return sealed.from_environment()
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError("passphrase_file", _("The passphrase in {file} could not be read.").format(file=file),
                          expected=_("a text file whose first line is the passphrase"),
                          found=getattr(error, "strerror", None) or "",
                          next=_("Name another file with --passphrase-file.")) from error
    return lines[0] if lines else ""


def _asked(twice: bool) -> str:
    return str(typer.prompt(_("Passphrase"), hide_input=True, confirmation_prompt=_("Once more") if twice else False, err=True))
