"""The steps of a tuning, as people read of them."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from machikoba.language import _
from machikoba.store.tables import Job


def words(step: dict[str, Any]) -> str:
    """What a step does."""
    if step["base"] is None:
        return _("Words alone")
    forms = {"features": _("and the open model {base}, as it is"), "top": _("the upper half of {base} trained"),
             "lora": _("all of {base} trained")}
    return forms[step["rung"]].format(base=step["base"])


def doing(job: Job) -> str:
    """What a work is at."""
    forms = {"reading": _("The open model reads the messages: {done} of {total}"),
             "grouping": _("Putting together what is alike"), "packing": _("Packing, and testing on the messages kept aside"),
             "words": _("Learning words, part {done} of {total}"), "features": _("Learning, part {done} of {total}"),
             "top": _("Training the upper half, part {done} of {total}"), "lora": _("Training the model, part {done} of {total}")}
    return forms.get(job.doing, _("At work")).format(done=f"{job.done:,}", total=f"{job.total:,}")


def state(job: Job) -> str:
    """How a work stands."""
    if job.kind == "sort" and job.state in ("running", "failed"):
        return _("The messages are being read.") if job.state == "running" else _("The messages could not be read.")
    return {"draft": _("Not begun yet."), "queued": _("It waits for its turn."), "running": _("It is being made."),
            "done": _("It is done."), "failed": _("It could not be made."), "cancelled": _("It was stopped.")}[job.state]


def shown(steps: Sequence[dict[str, Any]] | None, at_work: bool) -> list[dict[str, Any]]:
    """Each step with its words and its state: done, now, skipped or next."""
    found, before = [], False
    for step in steps or []:
        if step["cv_accuracy"] is not None:
            how = "done"
        elif step["skipped_because"]:
            how = "skipped"
        else:
            how, before = ("now" if at_work and not before else "next"), True
        found.append({**step, "words": words(step), "state": how})
    return found
