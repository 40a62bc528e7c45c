"""Proofs, measurements and explanations in plain words."""
from __future__ import annotations

from typing import Any

from machikoba.engine.explain import Explanation
from machikoba.language import _


def replayed_lines(replayed: dict[str, Any]) -> list[str]:
    """Whether the bundle still answers as in its proof."""
    if not replayed["rows"]:
        return [_("This bundle is an apprentice: no rows were kept aside, so there is no proof to replay.")]
    if replayed["stands"]:
        return [_("The proof stands: all {n} answers are as they were.").format(n=replayed["rows"])]
    return [_("The proof does not stand on this machine: {k} of {n} answers changed. A person must confirm every answer.").format(
        k=len(replayed["changed"]), n=replayed["rows"])]


def measured_lines(measured: dict[str, Any]) -> list[str]:
    """The figures on other rows, each with its interval."""
    test = measured["test"]
    lines = [_("measured {n:,} messages of {file}").format(n=test["n"], file=measured["file"]),
             _rate(_("right, if all were answered"), test["accuracy"], test["accuracy_interval"]),
             _rate(_("answered alone"), test["coverage"], test["coverage_interval"])]
    if test["error_among_answered"] is not None:
        lines.append(_rate(_("wrong among these"), test["error_among_answered"], test["error_among_answered_interval"]))
    lines.append(_rate(_("mean F1 of the labels"), test["macro_f1"], test["macro_f1_interval"]))
    if scope := test.get("scope"):
        for name, figure in ((_("right among messages that fit a label"), scope["in_scope_accuracy"]),
                             (_("left to a person among those that fit none"), scope["out_of_scope_recall"]),
                             (_("Matthews correlation"), scope["matthews"]),
                             (_("the same at the best threshold"), scope["matthews_best"])):
            lines.append(_rate(name, figure["value"], [figure["low"], figure["high"]]))
    if measured["unknown_labels"]:
        lines.append(_("labels that the bundle does not know: {names}").format(names=", ".join(measured["unknown_labels"])))
    return lines


def explained_lines(explanation: Explanation) -> list[str]:
    """Label, confidence, hand-off, the most alike past messages, the telling words."""
    found = explanation.prediction
    fate = _("answered alone") if found.answered else (
        _("would be answered; a person confirms") if found.would_answer else _("left to a person"))
    lines = [_("{label}: {fate} (trust {trust})").format(label=found.label, fate=fate, trust=f"{found.confidence:.2f}")]
    for past in explanation.neighbours:
        lines.append(_("like     {text} → {label} ({likeness})").format(
            text=past.text.replace("\n", " ")[:80], label=past.label, likeness=f"{past.likeness:.2f}"))
    for word in explanation.words:
        lines.append((_("for      {word} ({effect})") if word.effect > 0 else _("against  {word} ({effect})")).format(
            word=word.word, effect=f"{word.effect:+.2f}"))
    return lines


def _rate(name: str, value: float, interval: list[float]) -> str:
    return f"{name}: {value:.3f} ({interval[0]:.3f}–{interval[1]:.3f})"
