"""The commands. What they do is in the library; here are their options and words."""
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from machikoba.cli.output import Mode, command, progress, result, show
from machikoba.language import _

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help=_("Finish an open AI model for one local job, on the PC you already have."))


def _set_json(on: bool) -> bool:
    Mode.json = on
    return on


Json = Annotated[bool, typer.Option("--json", help=_("Print one JSON object."), callback=_set_json, is_eager=True)]
Text = Annotated[str | None, typer.Option("--text", metavar="COL", help=_("Column with the messages (default: guessed)."))]
Label = Annotated[str | None, typer.Option("--label", metavar="COL", help=_("Column with the labels (default: guessed)."))]
Sheet = Annotated[str | None, typer.Option("--sheet", help=_("Sheet of a workbook (default: the first with rows)."))]
NoneLabel = Annotated[str | None, typer.Option("--none-label", metavar="X",
                                               help=_("Label of messages that fit no label: always left to a person."))]
Data = Annotated[Path, typer.Argument(help=_("An .xlsx, .xls, .ods, .csv, .tsv or .jsonl file."), show_default=False)]
BundleName = Annotated[str, typer.Argument(metavar="BUNDLE", help=_("A bundle: its path, or its name in the home."),
                                           show_default=False)]


def _version(on: bool) -> None:
    if on:
        from machikoba import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _main(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True,
                                                help=_("Print the version."))] = False) -> None:
    pass


@app.command(help=_("Say what is in a file of inquiries, and what would trouble the tuning."))
def check(data: Data, text: Text = None, label: Label = None, sheet: Sheet = None, none_label: NoneLabel = None,
          rows: Annotated[int, typer.Option(metavar="N", min=0, max=10, help=_("With --json: give the first N rows too."))] = 0,
          json: Json = False) -> None:
    from machikoba.records.check import check

    report = check(data, text=text, label=label, sheet=sheet, none_label=none_label, rows=rows)
    given = {"--text": text, "--label": label, "--sheet": sheet, "--none-label": none_label}
    words = [word for option, value in given.items() if value is not None for word in (option, value)]
    next_line = _("next     {command}").format(command=command("tune", data, *words))
    result(report.to_dict(), [*report.lines(), next_line])


@app.command(help=_("Make a tested bundle from a file of labelled inquiries."))
def tune(
    data: Data, text: Text = None, label: Label = None, sheet: Sheet = None, none_label: NoneLabel = None,
    task: Annotated[str, typer.Option(help=_("What the model shall do."))] = "classify",
    never_automatic: Annotated[list[str] | None, typer.Option(
        metavar="LABEL", help=_("Label that is always left to a person. May be repeated."))] = None,
    base: Annotated[list[str] | None, typer.Option(
        metavar="NAME|PATH", help=_("Open model: a name of `bases`, a folder, a .gguf file, a hub id. May be repeated."))] = None,
    target_error: Annotated[float, typer.Option(help=_("Bearable share of mistakes among automatic answers."))] = 0.05,
    target_coverage: Annotated[float, typer.Option(help=_("Share that shall be answered automatically."))] = 0.8,
    confidence: Annotated[float, typer.Option(help=_("How sure the promise shall be."))] = 0.95,
    budget: Annotated[str | None, typer.Option(help=_("Time limit such as 90s, 10m or 1h."))] = None,
    rungs: Annotated[str, typer.Option(help=_("Steps to consider, cheapest first."))] = "words,features",
    holdout: Annotated[str, typer.Option(help=_("auto, none, or the share of messages kept aside for the test."))] = "auto",
    require_certificate: Annotated[bool, typer.Option(help=_("Exit with 1 and keep nothing unless it is proved."))] = False,
    seed: Annotated[int, typer.Option(help=_("Number behind every random choice."))] = 0,
    out: Annotated[Path | None, typer.Option(metavar="BUNDLE", help=_("The bundle's path (default: in the home)."))] = None,
    estimate: Annotated[bool, typer.Option("--estimate", help=_("Say what it would cost, and stop."))] = False,
    resume: Annotated[bool, typer.Option("--resume", help=_("Go on where the same command was interrupted."))] = False,
    json: Json = False,
) -> None:
    from machikoba.cli.report import plan_lines, result_lines
    from machikoba.errors import OptionError
    from machikoba.tune.options import Options, seconds
    from machikoba.tune.run import estimated, tune

    if task != "classify":
        raise OptionError("option_wrong", _("The value of --{name} cannot be used.").format(name="task"),
                          expected="classify", found=task, next=_("`machikoba tune --help` lists the options."))
    options = Options(
        text=text, label=label, sheet=sheet, none_label=none_label, never_automatic=tuple(never_automatic or ()),
        bases=tuple(base or ()), target_error=target_error, target_coverage=target_coverage, confidence=confidence,
        budget_seconds=seconds(budget) if budget else None, rungs=tuple(filter(None, rungs.split(","))),
        holdout=holdout, require_certificate=require_certificate, seed=seed)
    if estimate:
        records, steps = estimated(data, options)
        result({"messages": len(records.examples), "steps": [step.to_dict() for step in steps]}, plan_lines(records, steps))
        return
    Mode.resumable = True
    with progress() as say:
        made = tune(data, options, out, say, lambda records, steps: show(plan_lines(records, steps)), resume)
    result(made.summary, result_lines(made))


@app.command(help=_("Add prediction, confidence, answered and would_answer to every row of a file."))
def predict(
    bundle: BundleName,
    file: Annotated[Path, typer.Argument(help=_("Messages: .xlsx, .csv, .tsv or .jsonl."), show_default=False)],
    out: Annotated[Path | None, typer.Option(help=_("Result: .csv, .tsv, .xlsx or .jsonl."))] = None,
    text: Text = None, sheet: Sheet = None, json: Json = False,
) -> None:
    from machikoba import load
    from machikoba.engine.table import predict_file

    target = out or file.with_name(f"{file.stem}_predicted.csv")
    with progress() as say:
        found = predict_file(load(bundle), file, target, text, sheet, lambda n: say(_("rows"), n, n))
    result(found, [_("{rows:,} rows: {answered:,} answered alone, {rest:,} for a person").format(
        rows=found["rows"], answered=found["answered"], rest=found["rows"] - found["answered"] - found["empty"]),
        _("written  {file}").format(file=found["file"])])


@app.command(help=_("Replay the proof of a bundle, or measure the bundle on other labelled rows."))
def prove(
    bundle: BundleName,
    data: Annotated[Path | None, typer.Argument(help=_("Other labelled rows to measure."), show_default=False)] = None,
    text: Text = None, label: Label = None, sheet: Sheet = None, none_label: NoneLabel = None, json: Json = False,
) -> None:
    from machikoba.cli.proof import measured_lines, replayed_lines
    from machikoba.engine.prove import measure_file, replay_proof
    from machikoba.engine.runtime import Engine
    from machikoba.pack.bundle import find_bundle
    from machikoba.settings import made_home

    home = made_home()
    service = Engine(home).load(find_bundle(bundle, home), check_machine=False)
    if data is not None:
        measured = measure_file(service, data, text, label, sheet, none_label)
        result(measured, measured_lines(measured))
        return
    replayed = replay_proof(service)
    result(replayed, replayed_lines(replayed))
    if not replayed["stands"]:
        raise typer.Exit(1)


@app.command(help=_("Show what a bundle says to one message, and why."))
def explain(
    bundle: BundleName,
    message: Annotated[str, typer.Argument(help=_("A message as a customer would write it."), show_default=False)],
    json: Json = False,
) -> None:
    from dataclasses import asdict

    from machikoba import load
    from machikoba.cli.proof import explained_lines
    from machikoba.engine.explain import explain

    explanation = explain(load(bundle), message)
    result(asdict(explanation), explained_lines(explanation))


@app.command(help=_("List the known open models, with licence, size and whether they are on this machine."))
def bases(json: Json = False) -> None:
    from machikoba.base.catalog import available, catalog

    here = set(available())
    rows = [entry.model_dump(mode="json") | {"here": entry.name in here} for entry in catalog().values()]
    lines = [_("{mark} {name}: {licence}, {languages}, {mib:,} MiB of memory; {how}").format(
        mark="●" if row["here"] else "○", name=row["name"], licence=row["licence"], languages=row["languages"],
        mib=row["memory_mib"], how=_("on this machine") if row["here"] else catalog()[row["name"]].pip_command or row["hub"])
        for row in rows]
    result({"bases": rows}, lines)


@app.command(help=_("List the bundles in the home."))
def bundles(json: Json = False) -> None:
    from machikoba.pack.bundle import list_bundles
    from machikoba.settings import home

    found = [{"name": b.path.name, "path": str(b.path), "task": b.facts["task"], "rung": b.facts["rung"],
              "labels": b.facts["labels"], "status": b.proof()["status"]} for b in list_bundles(home())]
    status = {"qualified": _("qualified"), "apprentice": _("apprentice")}
    lines = [_("{name}: {status}, {n} labels").format(name=b["name"], status=status[b["status"]], n=len(b["labels"]))
             for b in found]
    result({"bundles": found}, lines or [_("No bundle yet. Make one: machikoba tune FILE")])
