"""The Japanese catalogue says everything that the code says, with the same placeholders."""
from __future__ import annotations

import re
from pathlib import Path

from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from machikoba import language
from machikoba.language import _, use_language

ROOT = Path(__file__).resolve().parent.parent
PLACEHOLDER = re.compile(r"\{[a-z_]+[^}]*\}")


def catalogue():
    with (ROOT / "machikoba" / "locale" / "ja.po").open(encoding="utf-8") as file:
        return read_po(file, locale="ja")


def msgids():
    return {found[2] for found in extract_from_dir(
        str(ROOT / "machikoba"), method_map=[("**.py", "python"), ("**/templates/**.html", "jinja2.ext:babel_extract")],
        keywords={"_": None, "_n": (1, 2)})}


def both(message):
    """What is said in English, for one and for many, and what in Japanese."""
    return "".join(message.id if message.pluralizable else [message.id]), "".join(
        message.string if message.pluralizable else [message.string])


def test_every_message_has_a_translation_and_no_other():
    translated = {message.id for message in catalogue() if message.id and message.string and not message.fuzzy}
    assert translated == msgids()


def test_placeholders_are_the_same():
    for english, japanese in map(both, catalogue()):
        assert set(PLACEHOLDER.findall(english)) == set(PLACEHOLDER.findall(japanese)), english


def test_commands_and_options_are_not_translated():
    for english, japanese in map(both, catalogue()):
        assert set(re.findall(r"--[a-z-]+|`[^`]+`", english)) == set(re.findall(r"--[a-z-]+|`[^`]+`", japanese)), english


def test_the_language_of_a_context():
    use_language("ja")
    try:
        assert language.language() == "ja"
        assert _("No bundle yet. Make one: machikoba tune FILE") != "No bundle yet. Make one: machikoba tune FILE"
    finally:
        use_language(None)
    assert language.language() == "en"
