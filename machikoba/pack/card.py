"""card.md and NOTICE: what the bundle is, for people and in the Hub's metadata format, in English and Japanese."""
from __future__ import annotations

import json
from typing import Any


def card(facts: dict[str, Any], summary: dict[str, Any], file_name: str) -> str:
    """The model card. It names counts and labels, never a customer's text."""
    base, test = facts["base"], summary["test"]
    name = base["name"] if base else "words only"
    percent = f"{100 * facts['target_error']:g}%"
    level = f"{100 * facts['confidence']:g}%"
    certificate = summary["certificate"]
    if certificate:
        promise = (f"Of {certificate['n']} messages kept aside, {certificate['answered']} were answered alone and "
                   f"{certificate['wrong']} of these wrongly: on messages like these, at most {percent} of the answers are "
                   f"wrong (confidence {level}).")
        promise_ja = (f"検査のために取り分けた{certificate['n']}件のうち{certificate['answered']}件に自動で答え、誤りは"
                      f"{certificate['wrong']}件でした。同じような問い合わせなら、自動で答えた分の誤りは{percent}以下です（信頼度{level}）。")
    else:
        promise = "Apprentice: no bound on its mistakes is proved; a person confirms every answer."
        promise_ja = "見習いです。誤りの上限はまだ確かめられていません。すべての答えを人が確認します。"
    source = {"held-out": ("on messages kept aside", "取り分けた問い合わせ"),
              "cross-validation": ("by cross-validation", "交差検証")}[test["source"]]
    header = {
        "license": "other", "language": ["ja", "en"], "library_name": "machikoba", "pipeline_tag": "text-classification",
        "tags": ["machikoba", facts["rung"]], "base_model": base["name"] if base else None}
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in header.items() if value is not None]
    labels = ", ".join(facts["labels"])
    return "\n".join([
        "---", *lines, "---", "", f"# {facts['task']}: {file_name}", "",
        f"Sorts messages into {len(facts['labels'])} kinds: {labels}.", "",
        f"- Made from: {name} ({base['licence'] if base else 'no model'}), rung `{facts['rung']}`",
        f"- Right: {100 * test['accuracy']:.1f}% of {test['n']} messages, {source[0]}",
        f"- {promise}", "- Holds for messages like those it was tested on; watch it in use.", "",
        "## 日本語", "", f"問い合わせを{len(facts['labels'])}種類に仕分けます：{'、'.join(facts['labels'])}。", "",
        f"- 元のモデル：{name if base else 'なし（言葉だけ）'}",
        f"- 正しく仕分けた割合：{100 * test['accuracy']:.1f}％（{source[1]}{test['n']}件）",
        f"- {promise_ja}", "- 検査に使った問い合わせと同じようなものについての結果です。使い始めてからも見守ってください。", ""])


def notice(facts: dict[str, Any]) -> str:
    """What must travel with the bundle: the base's licence and its conditions."""
    base = facts["base"]
    if base is None:
        return "This bundle contains no part of an open model.\n"
    return "\n".join([f"Made with the open model {base['name']}, licence: {base['licence']}.",
                      *([base["notice"]] if base["notice"] else []), ""])
