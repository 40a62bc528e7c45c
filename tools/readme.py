"""Fills the measured parts of README.md and README.ja.md from bench/results; with --check only says whether they are true.

    python tools/readme.py [--check]

A part stands between <!-- NAME --> and <!-- /NAME -->.
"""
from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
WORDS = {
    "README.md": {
        "demo": "make demo      # {minutes} min on {cores} cores, most of it installation",
        "hotel": "hotel messages in Japanese (asdc, CC BY 4.0), 32 examples per kind, {n:,} test messages",
        "right": "right", "cpu": "CPU-seconds", "memory": "memory", "ours": "machikoba (multilingual-e5-small, frozen)",
        "ours_words": "machikoba, words only", "peer": "PEFT LoRA with Transformers' Trainer (Gemma 3 270M, 4 epochs)",
        "set": "public set", "per_label": "examples per kind", "all": "all", "base": "base", "none": "words only",
        "oos": "clinc150 with requests that fit no kind, 20 examples per kind", "learnt": "out-of-scope examples given",
        "mcc": "Matthews correlation at the target", "recall": "out-of-scope requests left to a person",
        "in_scope": "right, in scope", "yes": "100", "no": "none", "on": "{processor}, {cores} cores, {date}",
        "run": "training", "theirs": "the peer",
        "tokens": "{n:,} tokens/s", "loss": "held-out loss {loss:.3f}", "times": "{n:.1f} times as fast",
        "gemma": "LoRA on Gemma 3 270M, sorting; PEFT with Transformers' Trainer",
        "avx2": "the same with AVX2 only, as on an office PC", "e5": "LoRA on multilingual-e5-small, sorting; PEFT",
        "sft": "LoRA on Gemma 3 270M, writing; TRL", "setfit": "all-MiniLM-L6-v2, banking77, 8 per kind; SetFit",
        "reach": "CPU-seconds until right as often as PEFT's LoRA, {dataset}", "ratio": "ratio", "cpu_s": "{n:,.0f} CPU-s",
        "messages": "messages", "seconds": "seconds", "features": "words and frozen model",
        "kinds": "With 5,000 messages, {few} kinds take {few_s} s and {few_mib:,} MiB, {many} kinds {many_s} s and {many_mib:,} "
                 "MiB. A token in a text of {long:,} tokens takes {times:.1f} times as long to read as in one of {short} "
                 "({base}).",
        "served": "kind of bundle", "process": "one message, in a program", "asked": "the same over the network",
        "rate": "requests a second, {n}",
        "ms": "{n:.1f} ms", "client": "1 client", "clients": "{n} clients",
        "served_words": "words only", "served_features": "multilingual-e5-small, frozen", "served_gemma": "Gemma 3 270M, frozen",
        "shared": "Of 64 messages at once, each {few} or {many} trained bundles' own, it reads {of_few:.1f} and {of_many:.1f} "
                  "times as many a second as PEFT. Among {n:,} bundles on one base a message takes {slower:.2f} times as long as "
                  "with one (trained bundles: {trained:.2f}), and each takes up to {mib:.2f} MiB.",
        "ladder": "All {n:,} hotel messages, every step of the ladder on multilingual-e5-small: {right} right, in {minutes} "
                  "minutes and {mib:,} MiB.",
        "told": "Of {n} steps on five sets, {held} took the time that was told beforehand, within {share:.0%} or {seconds:g} "
                "seconds; {enough} no more memory."},
    "README.ja.md": {
        "demo": "make demo      # {cores}コアのパソコンで{minutes}分（ほとんどはインストールの時間）",
        "hotel": "ホテルへの問い合わせ（asdc、CC BY 4.0）、1種類あたり見本32件、検査{n:,}件",
        "right": "正解率", "cpu": "CPU秒", "memory": "メモリ", "ours": "machikoba（multilingual-e5-smallを固定したまま）",
        "ours_words": "machikoba（言葉だけ）", "peer": "PEFT LoRA＋TransformersのTrainer（Gemma 3 270M、4エポック）",
        "set": "公開データ", "per_label": "1種類あたりの見本", "all": "すべて", "base": "元のモデル", "none": "言葉だけ",
        "oos": "clinc150（どの種類にも当てはまらない依頼を含む）、1種類あたり見本20件", "learnt": "当てはまらない依頼の見本",
        "mcc": "目標値でのマシューズ相関係数", "recall": "当てはまらない依頼を人に回した割合",
        "in_scope": "当てはまる依頼の正解率", "yes": "100件", "no": "なし", "on": "{processor}、{cores}コア、{date}",
        "run": "学習", "theirs": "比べた道具",
        "tokens": "毎秒{n:,}トークン", "loss": "未使用データでの損失 {loss:.3f}", "times": "{n:.1f}倍の速さ",
        "gemma": "Gemma 3 270MのLoRA（仕分け）。PEFTとTransformersのTrainer",
        "avx2": "同上、事務用パソコンと同じAVX2だけ", "e5": "multilingual-e5-smallのLoRA（仕分け）。PEFT",
        "sft": "Gemma 3 270MのLoRA（文章）。TRL", "setfit": "all-MiniLM-L6-v2、banking77、1種類8件。SetFit",
        "reach": "PEFTのLoRAと同じ正解率に届くまでのCPU秒（{dataset}）", "ratio": "比", "cpu_s": "{n:,.0f} CPU秒",
        "messages": "件数", "seconds": "秒", "features": "言葉と固定したモデル",
        "kinds": "5,000件のとき、{few}種類なら{few_s}秒・{few_mib:,} MiB、{many}種類なら{many_s}秒・{many_mib:,} "
                 "MiBです。{long:,}トークンの文を読む時間は、1トークンあたり{short}トークンの文の{times:.1f}倍です（{base}）。",
        "served": "一式の種類", "process": "1件の判断（プログラムの中で）", "asked": "同じくネットワーク越し",
        "rate": "1秒あたりの要求数（{n}）",
        "ms": "{n:.1f} ミリ秒", "client": "同時1人", "clients": "同時{n}人",
        "served_words": "言葉だけ", "served_features": "multilingual-e5-small（固定）", "served_gemma": "Gemma 3 270M（固定）",
        "shared": "64件をまとめて読むとき、学習済みの一式が{few}個でも{many}個でも、PEFTのそれぞれ{of_few:.1f}倍と"
                  "{of_many:.1f}倍の速さです。一つのモデルを{n:,}個の一式で分け合っても、1件にかかる時間は1個のときの{slower:.2f}倍"
                  "（学習済みの一式では{trained:.2f}倍）、メモリは1個あたり多くて{mib:.2f} MiBです。",
        "ladder": "ホテルへの問い合わせ全{n:,}件で、multilingual-e5-smallの段をすべて試すと、正解率{right}、{minutes}分、"
                  "メモリ{mib:,} MiBでした。",
        "told": "5種類のデータの{n}段のうち、{held}段は事前に示した時間の±{share:.0%}か{seconds:g}秒以内に終わり、"
                "{enough}段は示したメモリに収まりました。"},
}


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return found


def percent(spread: dict[str, float]) -> str:
    return f"{100 * spread['mean']:.1f}% ({100 * spread['least']:.1f}–{100 * spread['most']:.1f})"


def demo(words: dict[str, str], japanese: bool) -> str:
    """The demo's own words, and how long it took."""
    found = load("demo")
    head = words["demo"].format(minutes=max(1, round(found["first_run_seconds"] / 60)), cores=found["machine"]["cores"])
    return "\n".join(["```", head, *found["lines_ja" if japanese else "lines"], "```"])


def hotel(words: dict[str, str]) -> str:
    """The public hotel messages beside the peer, same rows."""
    found = load("classify")
    ours = {line["base"]: line for line in found["summary"] if line["dataset"] == "asdc_l1"}
    peers = [run for run in found["peers"] if run["dataset"] == "asdc_l1"]
    first = ours["multilingual-e5-small"]
    title = words["hotel"].format(n=first["test"])
    rows = [f"| {title} | {words['right']} | {words['cpu']} | {words['memory']} |", "|---|---|---|---|"]
    for name, line in ((words["ours"], first), (words["ours_words"], ours[None])):
        rows.append(f"| {name} | {percent(line['accuracy'])} | {line['cpu_seconds']['mean']:.1f} | {line['peak_mib']:,} MiB |")
    if peers:
        right = [run["accuracy"] for run in peers]
        spread = {"mean": sum(right) / len(right), "least": min(right), "most": max(right)}
        cpu = sum(run["train_cpu_s"] for run in peers) / len(peers)
        rows.append(f"| {words['peer']} | {percent(spread)} | {cpu:.0f} | {max(run['peak_mib'] for run in peers):,} MiB |")
    return "\n".join([*rows, "", words["on"].format(processor=found["machine"]["processor"], cores=found["machine"]["cores"],
                                                   date=found["date"])])


def sets(words: dict[str, str]) -> str:
    """Every public set, and the one with out-of-scope requests."""
    summary = load("classify")["summary"]
    titles = [words[name] for name in ("set", "per_label", "base", "right", "cpu")]
    rows = [f"| {' | '.join(titles)} |", "|---|---|---|---|---|"]
    for line in summary:
        if line["dataset"] != "clinc150":
            per_label = words["all"] if line["per_label"] >= 10_000 else str(line["per_label"])
            right = percent(line["accuracy"]) if line["per_label"] < 10_000 else f"{100 * line['accuracy']['mean']:.1f}%"
            rows.append(f"| `{line['dataset']}` | {per_label} | {line['base'] or words['none']} | {right} | "
                        f"{line['cpu_seconds']['mean']:.1f} |")
    rows += ["", f"| {words['oos']} | {words['learnt']} | {words['in_scope']} | {words['recall']} | {words['mcc']} |",
             "|---|---|---|---|---|"]
    for line in summary:
        if line["dataset"] == "clinc150":
            rows.append(f"| {line['base'] or words['none']} | {words['yes' if line['out_of_scope_learnt'] else 'no']} | "
                        f"{percent(line['in_scope_accuracy'])} | {percent(line['out_of_scope_recall'])} | "
                        f"{line['matthews']['mean']:.2f} |")
    return "\n".join(rows)


def training(words: dict[str, str]) -> str:
    """Each training beside the peer's."""
    runs = load("tuner")["runs"]
    rows = [f"| {words['run']} | machikoba | {words['theirs']} | {words['ratio']} |", "|---|---|---|---|"]
    for name in ("gemma", "avx2", "e5", "sft"):
        if name in runs:
            cells = []
            for side in ("ours", "peer"):
                found = runs[name][side]
                good = (words["loss"].format(loss=found["held_out_loss"]) if name == "sft"
                        else f"{100 * found['accuracy']:.1f}%")
                cells.append(f"{words['tokens'].format(n=round(found['tokens_per_s']))}, {found['peak_mib']:,} MiB, {good}")
            ratio = (f"{words['times'].format(n=runs[name]['times_the_tokens_per_s'])}, {words['memory']} "
                     f"{100 * runs[name]['share_of_the_memory']:.0f}%")
            rows.append(f"| {words[name]} | {cells[0]} | {cells[1]} | {ratio} |")
    few = [(words["setfit"], runs["setfit"]["ours"], "cpu_seconds", runs["setfit"]["peer"])] if "setfit" in runs else []
    few += [(words["reach"].format(dataset=dataset), found["ours"][-1], "cpu_seconds", found["peer"])
            for dataset, found in runs.get("reach", {}).items()]
    for title, ours, field, theirs in few:
        cells = [f"{words['cpu_s'].format(n=cpu)}, {100 * right:.1f}%" for cpu, right in (
            (ours[field], ours["accuracy"]), (theirs["train_cpu_s"], theirs["accuracy"]))]
        rows.append(f"| {title} | {cells[0]} | {cells[1]} | 1/{theirs['train_cpu_s'] / ours[field]:.0f} |")
    if "whole" in runs:
        found = runs["whole"]["all"]
        rows += ["", words["ladder"].format(n=found["rows"], right=f"{100 * found['accuracy']:.1f}%",
                                            minutes=round(found["wall_s"] / 60), mib=found["peak_mib"])]
    steps, within = load("estimates")["runs"], load("estimates")["within"]
    rows += ["", words["told"].format(n=len(steps), held=sum(step["holds_again"] for step in steps), **within,
                                      enough=sum(step["told_mib"] >= step["taken_mib"] for step in steps))]
    return "\n".join(rows)


def growth(words: dict[str, str]) -> str:
    """From file to bundle against rows; then kinds and lengths in a sentence."""
    found = load("growth")
    rows = [f"| {words['messages']} | {words['features']} | {words['memory']} |", "|---|---|---|"]
    rows += [f"| {line['rows']:,} | {line['wall_s']:,.0f} {words['seconds']} | {line['peak_mib']:,} MiB |"
             for line in found["rows"] if line["rungs"] == "words,features"]
    few, many = found["labels"][0], found["labels"][-1]
    base = found["length"][0]["base"]
    read = {line["tokens"]: line["read_microseconds"] for line in found["length"] if line["base"] == base}
    short, long = 128, max(read)
    return "\n".join([*rows, "", words["kinds"].format(
        few=few["labels"], few_s=round(few["wall_s"]), few_mib=few["peak_mib"], many=many["labels"], many_s=round(many["wall_s"]),
        many_mib=many["peak_mib"], short=short, long=long, times=read[long] / read[short], base=base)])


def serving(words: dict[str, str]) -> str:
    """A message in the process and over the network, requests a second, and many bundles on one base."""
    found = load("serving")
    numbers = [line["clients"] for line in found["server"]["words"]["batched"]]
    names = [words["client"] if n == 1 else words["clients"].format(n=n) for n in numbers]
    titles = [words[name] for name in ("served", "process", "asked")] + [words["rate"].format(n=name) for name in names]
    rows = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for name, ways in found["server"].items():
        lines = {line["clients"]: line for line in ways["batched"]}
        cells = [words["ms"].format(n=ms) for ms in (found["one_by_one"][name]["p50_ms"], lines[1]["p50_ms"])]
        cells += [f"{lines[n]['requests_per_second']:,.0f}" if n in lines else "–" for n in numbers]
        rows.append(f"| {' | '.join([words[f'served_{name}'], *cells])} |")
    few, many = found["peft"]["lines"][0], found["peft"]["lines"][-1]
    plain, trained = (found["bundles"][kind]["bounded"]["lines"][-1] for kind in ("features", "lora"))
    return "\n".join([*rows, "", words["shared"].format(
        few=few["adapters"], many=many["adapters"], of_few=few["ratio"], of_many=many["ratio"], n=plain["bundles"],
        slower=plain["slower"], trained=trained["slower"], mib=max(plain["mib_per_bundle"], trained["mib_per_bundle"]))])


def filled(name: str, text: str) -> str:
    """The README `name` with its measured parts as they were measured."""
    words = WORDS[name]
    parts = {"demo": demo(words, name.endswith(".ja.md")), "hotel": hotel(words), "sets": sets(words),
             "training": training(words), "growth": growth(words), "serving": serving(words)}
    for part, content in parts.items():
        text, places = re.subn(rf"(<!-- {part} -->\n).*?(<!-- /{part} -->)", lambda m, c=content: m[1] + c + "\n" + m[2], text,
                               flags=re.S)
        if places != 1:
            raise SystemExit(f"{name} has {places} places for {part}")
    return text


def main() -> int:
    stale = []
    for name in WORDS:
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        if filled(name, text) != text:
            stale.append(name)
            if "--check" not in sys.argv:
                path.write_text(filled(name, text), encoding="utf-8")
    if stale:
        print(("not as measured: " if "--check" in sys.argv else "written: ") + ", ".join(stale))
    return int(bool(stale) and "--check" in sys.argv)


if __name__ == "__main__":
    sys.exit(main())
