"""Backups, restores and exports in plain words."""
from __future__ import annotations

from datetime import datetime
from typing import Any

from machikoba.language import _


def backup_lines(made: dict[str, Any]) -> list[str]:
    """What is in the file, what is not, and until when it is kept."""
    lines = [_("backup   {file}").format(file=made["file"]),
             _("holds    {businesses:,} businesses, {rows:,} rows, {bundles:,} bundles").format(
                 businesses=made["businesses"], rows=made["rows"], bundles=made["bundles"]),
             _("whole    {mib:,} MiB, read back from the disk").format(mib=_mib(made["bytes"]))]
    lines += [_("gone     {name} was deleted while the backup was made").format(name=name) for name in made["gone"]]
    lines += [_("damaged  {name} was damaged already; tune it again or take it from an older backup").format(name=name)
              for name in made["damaged"]]
    if made["outside"]:
        lines.append(_("outside  {n} bundles lie outside the home and are not in it").format(n=made["outside"]))
    lines.append(_("sealed   under the passphrase; without it nobody can open it, nor can you") if made["encrypted"] else
                 _("open     not encrypted: keep it like the customers' messages themselves, or use --encrypt"))
    if made["kept_until"]:
        lines.append(_("kept     until {date}; the first backup after that deletes it").format(date=made["kept_until"][:10]))
    lines += [_("deleted  {name}, whose time was over").format(name=name) for name in made["deleted"]]
    return lines


def restore_lines(found: dict[str, Any]) -> list[str]:
    """What the full check found, and what is otherwise than it was."""
    moment = datetime.fromisoformat(found["made_at"]).astimezone().strftime("%Y-%m-%d %H:%M")
    lines = [_("backup   of {moment}, made by machikoba {version}").format(moment=moment, version=found["machikoba"]),
             _("whole    {members:,} parts have their hashes, {rows:,} rows are as they were, the record of who did what is "
               "unbroken up to entry {number:,}").format(members=found["members"], rows=sum(found["rows"].values()),
                                                         number=found["audit"]),
             _("opened   {n:,} bundles of {businesses:,} businesses").format(n=found["bundles"], businesses=found["businesses"])]
    lines += [_("damaged  {name} was damaged when the backup was made").format(name=name) for name in found["damaged"]]
    lines += [_("gone     {name} was deleted while the backup was made").format(name=name) for name in found["gone"]]
    if found["outside"]:
        lines.append(_("outside  {n} bundles lay outside the home; copy them by hand").format(n=found["outside"]))
    lines += [_asked(one) for one in found["asked"]]
    if "restore" not in found:
        return [*lines, _("checked  nothing was changed")]
    lines.append(_("signed   {n:,} sign-ins ended: everybody signs in again. Keys and passwords are those of that day: end again "
                   "what was ended since, and forget again what was forgotten").format(n=found["sign_ins_ended"]))
    if found["jobs_queued"]:
        lines.append(_("work     {n:,} interrupted tasks begin again").format(n=found["jobs_queued"]))
    if found["before"]:
        lines.append(_("aside    what was here before is in {folder}; delete it when you no longer need it").format(
            folder=found["before"]))
    return lines


def export_lines(made: dict[str, Any]) -> list[str]:
    """The file, and what it can and cannot do elsewhere."""
    lines = [_("written  {file}").format(file=made["file"]),
             _("holds    no past message; what was learnt from them is in it, in pieces of up to four characters")]
    if made["base"]:
        lines.append(_("needs    the same open model on the other machine: {name}").format(name=made["base"]))
    if made["status"] == "qualified":
        lines.append(_("there    its proof cannot be repeated without the messages: on another kind of machine a person "
                       "confirms every answer"))
    return lines


def _asked(one: dict[str, Any]) -> str:
    base = one["base"] or _("words only")
    if one["why_not"]:
        return _("asked    not {base}: {bundle} cannot answer on this machine yet ({code})").format(
            base=base, bundle=one["bundle"], code=one["why_not"])
    if one["stands"] is None:
        return _("asked    {base}: {bundle} answers; as an apprentice it has no proof to repeat").format(
            base=base, bundle=one["bundle"])
    if one["stands"]:
        return _("asked    {base}: all {n:,} answers of {bundle} are as in its proof").format(
            base=base, bundle=one["bundle"], n=one["rows"])
    return _("asked    {base}: {bundle} does not answer as in its proof on this machine; here it is an apprentice").format(
        base=base, bundle=one["bundle"])


def _mib(size: int) -> int:
    return max(1, round(size / (1 << 20)))
