"""Texts for people, in Japanese or English: gettext with English msgids.

The Japanese catalogue is `locale/ja.po`, read as it is, so that no compiled copy can go stale.
"""
from __future__ import annotations

import gettext
import io
import locale
import os
from contextvars import ContextVar
from functools import cache
from importlib.resources import files

LANGUAGES = ("ja", "en")
_chosen: ContextVar[str | None] = ContextVar("language", default=None)


def language() -> str:
    """The language in use: `use_language`, else MACHIKOBA_LANG, else the locale; "ja" or "en"."""
    chosen = _chosen.get() or os.environ.get("MACHIKOBA_LANG", "")
    if chosen in LANGUAGES:
        return chosen
    name = (os.environ.get("LC_ALL") or os.environ.get("LC_MESSAGES") or os.environ.get("LANG")
            or locale.getlocale()[0] or "")
    return "ja" if name.lower().startswith(("ja", "japanese")) else "en"


def use_language(name: str | None) -> None:
    """Fixes the language of this context (a command, a request); None goes back to the environment's."""
    _chosen.set(name)


@cache
def _catalogue(name: str) -> gettext.NullTranslations:
    if name == "en":
        return gettext.NullTranslations()
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    text = files("machikoba").joinpath("locale", f"{name}.po").read_text(encoding="utf-8")
    compiled = io.BytesIO()
    write_mo(compiled, read_po(io.StringIO(text), locale=name))
    compiled.seek(0)
    return gettext.GNUTranslations(compiled)


def _n(one: str, many: str, n: int) -> str:
    """`one` for a single thing, else `many`, in the language in use; the caller fills in `{n}` and what else there is."""
    return _catalogue(language()).ngettext(one, many, n)


def _(message: str) -> str:
    """`message` (an English msgid, `{name}` placeholders filled by the caller) in the language in use."""
    return _catalogue(language()).gettext(message)
