"""What a bundle's proof says, in sentences that are true and that a shop owner understands. Pure: figures in, words out."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from machikoba.language import _, _n
from machikoba.settings import Prices

FAR = 10  # times the messages there are: nobody sorts that many more, and an extrapolation so far is worth little


@dataclass(frozen=True)
class Load:
    """How much there is to do, and what people's time costs; every one an assumption until the log knows better.

    minutes_by_hand: to read and sort one message; seconds_to_check: to confirm a suggestion; minutes_to_label: of each example
    that was sorted for learning, 0 where they were sorted anyway.
    """

    messages_a_month: float = 300.0
    wage_yen_per_hour: float = 1_200.0
    minutes_by_hand: float = 1.0
    seconds_to_check: float = 15.0
    minutes_to_label: float = 0.0
    hosted_yen_per_1000: float | None = None


def promise(proof: Mapping[str, Any]) -> list[str]:
    """The sentences above everything else."""
    certificate, test = proof["certificate"], proof["test"]
    if certificate:
        figures = {"n": f"{certificate['n']:,}", "alone": _percent(certificate["coverage"]),
                   "error": _percent(certificate["max_error"]), "level": _percent(certificate["confidence"])}
        return [sentence.format(**figures) for sentence in (
            _("For messages like the {n} that were kept aside for the test, it answers about {alone} by itself."),
            _("Of what it answers by itself, on average at most {error} is wrong in the long run ({level} confidence)."),
            _("The rest goes to a person."))]
    return [_("This sorter is still an apprentice: it answers nothing by itself, and a person confirms each suggestion."),
            _("In the test, {right} of {n} suggestions were right.").format(
                right=f"{round(test['accuracy'] * test['n']):,}", n=f"{test['n']:,}"),
            missing(proof["attempt"])]


def missing(attempt: Mapping[str, Any]) -> str:
    """What an apprentice still needs, in plain words."""
    frequent = _("To answer by itself its mistakes are too frequent; more messages alone will not do. Clearer kinds may: look at "
                 "the mistakes below.")
    if "messages_needed" in attempt:
        needed, there = attempt["messages_needed"], attempt["messages"]
        if needed is None or needed > FAR * there:
            return frequent
        more = max(1, needed - there)
        told = f"{round(more, 2 - len(str(more))):,}"  # an extrapolation: two digits are more than it knows
        return _("To answer by itself it needs about {n} more sorted messages (an 80% chance at the mistakes seen so far)."
                 ).format(n=told)
    if attempt["needed"] is None:
        return frequent
    return _n("To answer by itself it needs about {n} more checked answer (an 80% chance at the mistakes seen so far).",
              "To answer by itself it needs about {n} more checked answers (an 80% chance at the mistakes seen so far).",
              attempt["needed"]).format(n=f"{attempt['needed']:,}")


def alone(proof: Mapping[str, Any], state: str) -> float:
    """The share that is answered without a person by one that is an apprentice, qualified or suspended."""
    if state != "qualified":
        return 0.0
    return float(proof["certificate"]["coverage"] if proof["certificate"] else proof["test"]["coverage"])


def bill(proof: Mapping[str, Any], share: float, examples: int, load: Load, prices: Prices,
         seconds_per_message: float) -> dict[str, Any]:
    """What it costs and saves in a month, in yen and hours, beside sorting by hand and beside a hosted model.

    share: of messages that are answered without a person. examples: how many were learnt from.
    seconds_per_message: of the machine, for one answer.
    """
    n = load.messages_a_month
    by_hand = n * load.minutes_by_hand / 60
    checking = n * (1 - share) * load.seconds_to_check / 3600
    machine = prices.yen(n * seconds_per_message)
    once = float(proof["cost"]["yen"]) + examples * load.minutes_to_label / 60 * load.wage_yen_per_hour
    hosted = None if load.hosted_yen_per_1000 is None else n / 1000 * load.hosted_yen_per_1000
    saved = by_hand - checking
    return {"hours_by_hand": by_hand, "hours_checking": checking, "hours_saved": saved,
            "yen_by_hand": by_hand * load.wage_yen_per_hour, "yen_checking": checking * load.wage_yen_per_hour,
            "yen_machine": machine, "yen_once": once, "yen_hosted": hosted,
            "yen_saved": saved * load.wage_yen_per_hour - machine,
            "alone": n * share, "handed_over": n * (1 - share)}


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"
