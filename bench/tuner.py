"""One training of the rung `lora` beside today's tools: same rows, same base, same epochs, one run.

    python bench/tuner.py --peers PYTHON [RUN …]     PYTHON of an environment with the peers' packages

gemma, e5: LoRA of rank 16 on all linear layers, asdc_l1 with 32 per label, 4 epochs, against PEFT with Transformers'
Trainer. avx2: the same with both held to AVX2, as on an office PC. setfit: banking77 with 8 per label, `features`
against SetFit. sft: prompts and completions, 2 epochs, against TRL; losses are on test rows that neither saw. reach:
CPU-seconds of the first step that is right as often as PEFT's LoRA, three sets with 32 per label (reach:SET: one of
them). whole: the whole ladder on all of asdc_l1, and on 32 per label. Accuracies are on all test rows; peak memory is of the
whole process, predicting the test rows included. A run that is not asked for keeps its last figures.
"""
from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from harness import DATA, PEERS, RESULTS, ROOT, draw, machikoba, rows, unpack, write_result, write_rows

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
EPOCHS = 4
SFT_EPOCHS, SFT_TEST = 2, 200
REACHED = {"asdc_l1": "multilingual-e5-small", "sib200_ja": "multilingual-e5-small", "banking77": "all-minilm-l6-v2"}
TRAIN = """
import json, sys, time
from pathlib import Path
import numpy as np
import torch
from machikoba.adapt.choose import FIRST, STRENGTHS, Rows
from machikoba.adapt.contract import Train
from machikoba.adapt.training_recipe import recipe_for
from machikoba.adapt.tuning import Tuner
from machikoba.base.load import find_base
from machikoba.base.speed import measured_speed
from machikoba.base.tokens import TokenWeights
from machikoba.memory import peak_mib
from dataclasses import replace
base, home, train, test, epochs = sys.argv[1], Path(sys.argv[2]), *(json.load(open(a)) for a in sys.argv[3:5]), int(sys.argv[5])
texts, names = [t for t, _l in train], sorted({l for _t, l in train})
labels = np.array([names.index(l) for _t, l in train])
speed = measured_speed(home)
tuner = Tuner(find_base(base, home), speed, home)
tuner.read(texts + [t for t, _l in test])
weights = TokenWeights.learn([tuner.tokens[t] for t in texts])
tuner.trunk.model  # loads the model, which the peers' clock does not count either
wall, cpu = time.monotonic(), time.process_time()
recipe = replace(recipe_for(len(texts), tuner.trunk.base.megaflops_per_token), epochs=epochs)
losses = tuner.fit(texts, labels, recipe, weights, 0)
wall, cpu = time.monotonic() - wall, time.process_time() - cpu
tokens = epochs * sum(len(tuner.tokens[t]) for t in texts)
useful = tokens * 4 * sum(g.weight.numel() for g in tuner.updates.groups) / wall / 1e9
tuner.keep(0.5)
choice = replace(FIRST, layer="last", strengths=STRENGTHS, shares=(0.25,) * 4)
rows = Rows(Train(texts, labels, tuple(names), np.arange(len(texts))), tuner.features(texts, weights),
            tuner.trunk.base.kind == "decoder")
machine = rows.fit(choice, 0, lambda some: tuner.features(some, weights))
machine.trust = np.zeros(6, np.float32)
chosen = machine.predict([t for t, _l in test]).probabilities.argmax(1)
right = np.mean([names[c] == l for c, (_t, l) in zip(chosen, test, strict=True)])
peak = peak_mib()
square = torch.randn(2048, 2048).to(getattr(torch, speed.dtype))
best = 1e9
for _ in range(8):
    began = time.monotonic(); square @ square; best = min(best, time.monotonic() - began)
print(json.dumps({"dtype": speed.dtype, "accuracy": round(float(right), 4), "test": len(test), "epochs": epochs,
    "train_wall_s": round(wall, 1), "train_cpu_s": round(cpu, 1), "tokens_per_s": round(tokens / wall, 1), "peak_mib": peak,
    "first_loss": round(losses[0], 3), "last_loss": round(float(np.mean(losses[-5:])), 3), "useful_gigaflops": round(useful),
    "bare_2048_gigaflops": round(2 * 2048**3 / best / 1e9)}))
"""


def ours(base: str, folder: Path, extra: dict[str, str]) -> dict[str, Any]:
    """One training of ours on the peers' rows."""
    train, test = draw("asdc_l1", 32, 0), rows(DATA / "asdc_l1" / "test.csv")
    for name, some in (("train", train), ("test", test)):
        (folder / f"{name}.json").write_text(json.dumps(some), encoding="utf-8")
    return last_line([sys.executable, "-c", TRAIN, base, folder / "home", folder / "train.json", folder / "test.json", EPOCHS],
                     ROOT, extra)


def peer(python: Path, script: str, *arguments: Any, extra: dict[str, str]) -> dict[str, Any]:
    """What a peer's script prints."""
    return last_line([python, script, *arguments, "--test", 100_000, "--seed", 0], PEERS, extra)


SFT = """
import json, sys, time
from dataclasses import replace
from pathlib import Path
from machikoba.adapt.sft import RECIPE, Writer
from machikoba.base.load import find_base
from machikoba.base.speed import measured_speed
from machikoba.memory import peak_mib
base, home, train, test, epochs = sys.argv[1], Path(sys.argv[2]), *(json.load(open(a)) for a in sys.argv[3:5]), int(sys.argv[5])
speed = measured_speed(home)
writer = Writer(find_base(base, home), speed)
pairs = writer.read([tuple(row) for row in train])
writer.trunk.model
wall, cpu = time.monotonic(), time.process_time()
writer.fit(pairs, replace(RECIPE, epochs=epochs))
wall, cpu = time.monotonic() - wall, time.process_time() - cpu
tokens, peak = epochs * sum(len(pair.tokens) for pair in pairs), peak_mib()
print(json.dumps({"dtype": speed.dtype, "epochs": epochs, "train_wall_s": round(wall, 1), "train_cpu_s": round(cpu, 1),
    "tokens_per_s": round(tokens / wall, 1), "peak_mib": peak,
    "held_out_loss": round(writer.loss(writer.read([tuple(row) for row in test])), 4)}))
"""
PEER_SFT = """
import json, runpy, sys
import torch
sys.path.insert(0, ".")
test = json.load(open(sys.argv.pop()))
sys.argv[0] = "trl_sft.py"
found = runpy.run_path("trl_sft.py")
model, tokenizer = found["model"], found["tokenizer"]
total = count = 0
for prompt, completion in test:
    before = tokenizer(prompt)["input_ids"]
    after = tokenizer(completion, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([before + after], device=model.device)).logits[0, len(before) - 1:-1].float()
    total += torch.nn.functional.cross_entropy(logits.cpu(), torch.tensor(after), reduction="sum").item()
    count += len(after)
print(json.dumps({"held_out_loss": round(total / count, 4)}))
"""


def sft(python: Path, folder: Path) -> dict[str, Any]:
    """The same prompts and completions by ours and by TRL."""
    paths = []
    for name, some in (("train", draw("asdc_l1", 32, 0)), ("test", rows(DATA / "asdc_l1" / "test.csv")[:SFT_TEST])):
        pairs = [(f"問い合わせ: {text}\n分類:", " " + label) for text, label in some]
        paths.append(folder / f"{name}_pairs.json")
        paths[-1].write_text(json.dumps(pairs), encoding="utf-8")
    us = last_line([sys.executable, "-c", SFT, "gemma-3-270m", folder / "home", *paths, SFT_EPOCHS], ROOT, {})
    lines = output([python, "-c", PEER_SFT, "asdc_l1", "--epochs", SFT_EPOCHS, "--test", 1, "--seed", 0, paths[1]], PEERS, {})
    them = json.loads(lines[-2]) | json.loads(lines[-1])
    print(json.dumps(them), flush=True)
    return {"ours": us, "peer": them, "times_the_tokens_per_s": round(us["tokens_per_s"] / them["tokens_per_s"], 2),
            "share_of_the_memory": round(us["peak_mib"] / them["peak_mib"], 3),
            "held_out_loss_ratio": round(us["held_out_loss"] / them["held_out_loss"], 4)}


def tuned(some: list[tuple[str, str]], test: list[tuple[str, str]], base: str, rungs: str, folder: Path) -> dict[str, Any]:
    """The ladder on these rows, from file to bundle, and how often the bundle is right."""
    data, other = write_rows(folder / "train.csv", some), write_rows(folder / "test.csv", test)
    out = folder / f"{base}-{rungs}-{len(some)}.bundle"
    made = machikoba("tune", data, "--base", base, "--rungs", rungs, "--holdout", "none", "--target-coverage", "0.999",
                     "--out", out, home=folder / "home")
    right = machikoba("prove", out, other, home=folder / "home")["test"]["accuracy"]
    found = {"rows": len(some), "base": base, "rungs": rungs, "chosen": made["rung"], "accuracy": round(right, 4),
             "cpu_seconds": round(sum(step["cpu_seconds"] for step in made["ladder"]), 1),
             "wall_s": made["cost"]["wall_seconds"], "peak_mib": made["cost"]["peak_mib"]}
    print(json.dumps(found), flush=True)
    return found


def reach(python: Path, folder: Path, known: dict[str, Any], only: str) -> dict[str, Any]:
    """CPU-seconds until PEFT's accuracy is reached: step by step, each from the start. only: one set, the others are `known`."""
    found = dict(known)
    for dataset, base in REACHED.items():
        if only not in ("", dataset):
            continue
        unpack(base, folder / "home")  # once for each machine, and no part of a training
        them = peer(python, "peft_trainer.py", dataset, "--per-class", 32, "--epochs", EPOCHS, extra={})
        tried = []
        for rungs in ("words", "words,features", "words,features,top", "words,features,top,lora"):
            tried.append(tuned(draw(dataset, 32, 0), rows(DATA / dataset / "test.csv"), base, rungs, folder))
            if tried[-1]["accuracy"] >= them["accuracy"]:
                break
        found[dataset] = {"ours": tried, "peer": them, "reached": tried[-1]["accuracy"] >= them["accuracy"],
                          "share_of_the_cpu_seconds": round(tried[-1]["cpu_seconds"] / them["train_cpu_s"], 4)}
    return found


def whole(folder: Path) -> dict[str, Any]:
    """The whole ladder on few and on all hotel messages."""
    test, ladder = rows(DATA / "asdc_l1" / "test.csv"), "words,features,top,lora"
    return {"32": tuned(draw("asdc_l1", 32, 0), test, "multilingual-e5-small", ladder, folder),
            "all": tuned(rows(DATA / "asdc_l1" / "train.csv"), test, "multilingual-e5-small", ladder, folder)}


def output(command: list[Any], where: Path, extra: dict[str, str]) -> list[str]:
    """The lines that a command prints."""
    done = subprocess.run([str(part) for part in command], cwd=where, stdout=subprocess.PIPE, check=True, text=True,
                          env=os.environ | {"HF_HUB_OFFLINE": "1", "MACHIKOBA_LANG": "en"} | extra)
    return done.stdout.strip().splitlines()


def last_line(command: list[Any], where: Path, extra: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output(command, where, extra)[-1])
    print(json.dumps(found), flush=True)
    return found


def compare(us: dict[str, Any], them: dict[str, Any]) -> dict[str, Any]:
    """Both, their ratios, and the lower 95% end of the difference of accuracies, taken as of independent rows."""
    p, q, n = us["accuracy"], them["accuracy"], us["test"]
    error = ((p * (1 - p) + q * (1 - q)) / n) ** 0.5
    return {"ours": us, "peer": them, "times_the_tokens_per_s": round(us["tokens_per_s"] / them["tokens_per_s"], 2),
            "share_of_the_memory": round(us["peak_mib"] / them["peak_mib"], 3), "accuracy_gain": round(p - q, 4),
            "accuracy_gain_low": round(p - q - 1.96 * error, 4)}


def with_base(folder: Path, base: str) -> dict[str, str]:
    """A home in which the peers' script finds `base` where it looks for its own."""
    from machikoba.base.load import find_base

    place = folder / "peers" / ".cache" / "peers"
    place.mkdir(parents=True)
    (place / "gemma-3-270m").symlink_to(find_base(base, folder / "home").folder)
    return {"HOME": str(folder / "peers")}


def setfit(python: Path, folder: Path) -> dict[str, Any]:
    """`features` on SetFit's encoder, rows and test."""
    them = peer(python, "setfit_few.py", "banking77", "--per-class", 8, "--pairs", 2, extra={})
    data = write_rows(folder / "banking.csv", draw("banking77", 8, 0))
    test = write_rows(folder / "test.csv", rows(DATA / "banking77" / "test.csv"))
    made = machikoba("tune", data, "--base", "all-minilm-l6-v2", "--rungs", "features", "--holdout", "none",
                     "--out", folder / "b.bundle", home=folder / "home")
    found = machikoba("prove", folder / "b.bundle", test, home=folder / "home")["test"]
    step = made["ladder"][0]
    us = {"accuracy": found["accuracy"], "test": found["n"], "cpu_seconds": step["cpu_seconds"],
          "peak_mib": made["cost"]["peak_mib"]}
    return {"ours": us, "peer": them, "share_of_the_cpu_seconds": round(us["cpu_seconds"] / them["train_cpu_s"], 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", default=["gemma", "e5", "avx2", "setfit", "sft", "reach", "whole"])
    parser.add_argument("--suffix", default="", help="of the file of results, as for another machine")
    parser.add_argument("--peers", type=Path, required=True, help="Python of an environment with the peers' packages")
    asked = parser.parse_args()
    python, name = asked.peers.absolute(), f"tuner{asked.suffix and '-' + asked.suffix}"
    known = RESULTS / f"{name}.json"
    found = json.loads(known.read_text(encoding="utf-8"))["runs"] if known.exists() else {}
    for asked_run in asked.runs:
        run, _colon, only = asked_run.partition(":")
        alone = {"setfit": setfit, "sft": sft, "whole": lambda _python, folder: whole(folder),
                 "reach": partial(reach, known=found.get("reach", {}), only=only)}
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if run in alone:
                if run == "sft":
                    unpack("gemma-3-270m", folder / "home")
                found[run] = alone[run](python, folder)
                write_result(name, {"runs": found})
                continue
            base = "multilingual-e5-small" if run == "e5" else "gemma-3-270m"
            extra = AVX2 if run == "avx2" else {}
            place = with_base(folder, base) if run == "e5" else {}
            unpack(base, folder / "home")
            us = ours(base, folder, extra)
            them = peer(python, "peft_trainer.py", "asdc_l1", "--epochs", EPOCHS, extra=extra | place)
            found[run] = compare(us, them)
            print(run, {k: v for k, v in found[run].items() if k not in ("ours", "peer")}, flush=True)
            write_result(name, {"runs": found})


if __name__ == "__main__":
    main()
