"""A tuning run in plain words: what was read, each step, the test, the price, the next command."""
from __future__ import annotations

from pathlib import Path
from typing import Any

from machikoba.cli.output import command, short
from machikoba.language import _
from machikoba.pack.statement import missing
from machikoba.records.privacy import PLACEHOLDERS
from machikoba.records.read import Records
from machikoba.tasks.classify import RUNGS
from machikoba.tune.ladder import Tried
from machikoba.tune.run import Result


def plan_lines(records: Records, steps: list[Tried]) -> list[str]:
    """What was read and what each step would cost, before anything is spent."""
    masked = ", ".join(f"{PLACEHOLDERS[kind]} {n:,}" for kind, n in sorted(records.personal.items()))
    lines = [_("read     {place}: {n:,} messages, {k} kinds").format(
        place=records.source.where(), n=len(records.examples), k=len(records.label_counts()))]
    lines.append(_("         message: {text} ({why}); label: {label} ({why_label})").format(
        text=records.text.name, why=records.text.reason, label=records.label.name if records.label else "",
        why_label=records.label.reason if records.label else ""))
    if masked:
        lines.append(_("         masked before anything is learnt: {kinds}").format(kinds=masked))
    for step in steps:
        cost = step.estimate
        lines.append(_("estimate {step}: {time}, {mib:,} MiB of memory, {yen} yen").format(
            step=_step(step), time=_time(cost.wall_seconds), mib=cost.peak_mib, yen=f"{cost.yen:.2f}"))
    return lines


def result_lines(result: Result) -> list[str]:
    """The ladder, the test, the price and what to do next."""
    summary = result.summary
    lines = [_step_line(i, step) for i, step in enumerate(result.tried, start=1)]
    lines += _test_lines(summary)
    cost, prices = summary["cost"], summary["cost"]["assumptions"]
    lines += [_("more     tuning the open model itself ({base}) may get more right, in about {time}: add --rungs {rungs}").format(
        base=step["base"], time=_time(step["estimate"]["wall_seconds"]), rungs=",".join(RUNGS))
        for step in summary["further"] if step["rung"] == RUNGS[-1]]
    lines.append(_("price    {yen} yen: {time} on this PC, {cpu} seconds of processor, {mib:,} MiB of memory").format(
        yen=f"{cost['yen']:.2f}", time=_time(cost["wall_seconds"]), cpu=round(cost["cpu_seconds"]), mib=cost["peak_mib"]))
    lines.append(_("         assumed: {watts} W at {kwh} yen per kWh, the machine at {hour} yen per hour").format(
        watts=f"{prices['watts']:g}", kwh=f"{prices['yen_per_kwh']:g}", hour=f"{prices['machine_yen_per_hour']:g}"))
    bundle = Path(summary["bundle"])
    lines.append(_("bundle   {path}").format(path=short(bundle)))
    lines.append(_("next     {command}").format(command=command("explain", bundle, _("Do you have a car park?"))))
    return lines


def _step(step: Tried) -> str:
    if step.rung.base is None:
        return _("words only")
    forms = {"features": _("+ open model {base}, frozen"), "top": _("+ open model {base}, upper half tuned"),
             "lora": _("+ open model {base}, tuned")}
    return forms[step.rung.name].format(base=step.rung.base)


def _step_line(number: int, step: Tried) -> str:
    if step.cv_accuracy is None or step.coverage is None:
        return _("step {n}   {step}: {why} (estimate {time})").format(
            n=number, step=_step(step), why=step.skipped_because, time=_time(step.estimate.wall_seconds))
    line = _("step {n}   {step}: right {right}, could answer alone {alone}, {time}").format(
        n=number, step=_step(step), right=_percent(step.cv_accuracy.value), alone=_percent(step.coverage.value),
        time=_time(step.wall_seconds))
    return line + (_(" — goal met, stopped here") if step.met else "")


def _test_lines(summary: dict[str, Any]) -> list[str]:
    test, certificate = summary["test"], summary["certificate"]
    lines = []
    if test["source"] == "held-out":
        lines.append(_("test     {n} more messages kept aside: {right} right").format(
            n=test["n"], right=_percent(test["accuracy"])))
    else:
        lines.append(_("test     each message judged by a model that had not seen it: {right} of {n} right").format(
            n=test["n"], right=_percent(test["accuracy"])))
    if certificate:
        lines.append(_("check    {n} messages kept aside: {answered} answered alone, {wrong} of them wrong").format(
            n=certificate["n"], answered=certificate["answered"], wrong=certificate["wrong"]))
        lines.append(_("         → on messages like these, at most {error} of the answers are wrong ({level} confidence)").format(
            error=_percent(certificate["max_error"]), level=_percent(certificate["confidence"])))
        lines.append(_("people   about {share} go to a person").format(
            share=_percent(1 - certificate["coverage"])))
    else:
        lines.append(_("check    apprentice: a person confirms every answer"))
        if "answered" in summary["attempt"]:
            lines.append(_("         {answered} answers checked, {wrong} wrong").format(**summary["attempt"]))
        lines.append("         " + missing(summary["attempt"]))
    if summary["time_order"]:
        lines.append(_("newest   learnt from the oldest 80%, right on the newest 20%: {right}").format(
            right=_percent(summary["time_order"]["accuracy"])))
    return lines


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%"


def _time(seconds: float) -> str:
    if seconds < 90:
        return _("{n} s").format(n=max(1, round(seconds)))
    return _("{n} min").format(n=round(seconds / 60))
