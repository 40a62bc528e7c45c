"""Every error that a user can meet, in one tree.

    MachikobaError
    ├── DataError          the records: a file, a sheet, a column, a row
    ├── BaseError          the open model: not here, not readable, not the one expected
    ├── BundleError        a bundle: damaged, of a newer format, made for another base
    ├── BackupError        a backup: not one, damaged, of a newer format, under another passphrase
    ├── OptionError        an option whose value cannot be used
    ├── StorageError       the disk or the database: full, read-only, no permission, not there
    ├── AccessError        who asks is not known, or may not do this
    └── RequirementError   nothing is broken, but what was required is not met (exit code 1)

Each says what happened (`message`), what was `expected`, what was `found` and what to do `next`, in the
language of the user; `code` never changes with the language.
"""
from __future__ import annotations

from machikoba.language import _

__all__ = [
    "AccessError", "BackupError", "BaseError", "BundleError", "DataError", "MachikobaError", "OptionError", "RequirementError",
    "StorageError", "discreet",
]


class MachikobaError(Exception):
    """An error with a stable `code` and, in the user's language, a message and a way out.

    Parameters
    ----------
    code: stable identifier in snake_case, the same in every language.
    message: one sentence, what happened and where (file, sheet and row where there is one).
    expected, found: what was wanted and what was there instead; may be empty.
    next: what the user can do now.
    """

    exit_code = 2

    def __init__(self, code: str, message: str, *, expected: str = "", found: str = "", next: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.expected = expected
        self.found = found
        self.next = next

    def to_dict(self) -> dict[str, str]:
        """The one error shape of command line, API and pages."""
        return {"code": self.code, "message": self.message, "expected": self.expected, "found": self.found,
                "next": self.next}


class DataError(MachikobaError):
    """The records cannot be used as they are."""


class BaseError(MachikobaError):
    """The open model is not here, not readable, or not the one expected."""


class BundleError(MachikobaError):
    """The bundle is damaged, of a newer format, or does not fit."""


class BackupError(MachikobaError):
    """The backup is not one, is damaged, of a newer format, or under another passphrase."""


class OptionError(MachikobaError):
    """An option has a value that cannot be used."""


class StorageError(MachikobaError):
    """The disk or the database refused: full, read-only, no permission, or not there."""


class AccessError(MachikobaError):
    """Who asks is not known, or may not do this. retry_after_seconds: when to come again, where that helps."""

    retry_after_seconds: int | None = None


class RequirementError(MachikobaError):
    """Nothing is broken, but a requirement that the user set is not met."""

    exit_code = 1


def discreet(error: MachikobaError) -> MachikobaError:
    """`error` as somebody elsewhere may see it: where files and databases lie is the log's business."""
    if not isinstance(error, BundleError | BaseError | BackupError | StorageError) or error.code == "bundle_unknown":
        return error
    message = (_("The disk of the server is full.") if error.code in ("disk_full", "store_full")
               else _("The store cannot be used at the moment.") if isinstance(error, StorageError)
               else _("This backup cannot be used at the moment.") if isinstance(error, BackupError)
               else _("This bundle cannot be used at the moment."))
    return MachikobaError(error.code, message, next=_("Tell whoever looks after the server."))
