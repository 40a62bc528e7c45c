"""How few answers a sorting session needs: our questions, random ones, and those the apprentice doubts most.

    python bench/sorting.py                    both sets, about 10 minutes
    python bench/sorting.py asdc_l1            one set

A simulated clerk answers with the true label. Each draw is a business of its own: four fifths of the training messages,
without labels. Every order asks near-duplicates once, has the same apprentice, and it learns after every 5 answers; our order
spends every 5th question on the random sample, and those count. `tuned` is what the rung `features` makes of the same answers.
"""
from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from harness import DATA, rows, spread, write_result
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from machikoba.adapt.choose import learn as tune
from machikoba.adapt.contract import Train
from machikoba.base.encoder import Encoder
from machikoba.base.load import find_base
from machikoba.base.speed import measured_speed
from machikoba.sort.answers import Answers
from machikoba.sort.apprentice import Apprentice, doubt
from machikoba.sort.ask import next_questions
from machikoba.sort.groups import group
from machikoba.sort.learn import learn, likeness
from machikoba.sort.outlook import outlook
from machikoba.sort.pool import Pool

SEEDS = (0, 1, 2)
EVERY = 5  # answers between two lessons
# set: base, answers in all, marks at which random order's accuracy is to be reached
RUNS: dict[str, tuple[str, int, tuple[int, ...]]] = {
    "asdc_l1": ("multilingual-e5-small", 400, (50, 100, 200, 400)),
    "banking77": ("all-minilm-l6-v2", 800, (50, 100, 200, 400, 800)),
}
MESSAGES, ROUNDS = 20_000, 50  # for the time of a question
Choose = Callable[[Pool, Answers, "Apprentice | None", int], list[str]]  # the next questions, by id


def ours(sample_every: int) -> Callable[[int], Choose]:
    return lambda seed: lambda pool, answers, apprentice, most: [
        question.message for question in next_questions(pool, answers, apprentice, most, sample_every, seed)]


def at_random(seed: int) -> Choose:
    def choose(pool: Pool, answers: Answers, _apprentice: Apprentice | None, most: int) -> list[str]:
        order = np.random.default_rng(seed).permutation(len(pool)).tolist()
        return [pool.ids[i] for i in order if pool.ids[i] not in answers.given][:most]
    return choose


def doubtful(seed: int) -> Choose:
    """Plain uncertainty sampling by the lead of the likeliest label; at random before there are two labels."""
    by_chance = at_random(seed)

    def choose(pool: Pool, answers: Answers, apprentice: Apprentice | None, most: int) -> list[str]:
        if apprentice is None:
            return by_chance(pool, answers, None, most)
        order = np.argsort(-doubt(apprentice.scores, apprentice.factor), kind="stable").tolist()
        return [pool.ids[i] for i in order if pool.ids[i] not in answers.given][:most]
    return choose


ORDERS: dict[str, Callable[[int], Choose]] = {
    "ours": ours(5), "ours_without_sample": ours(0), "random": at_random, "uncertainty": doubtful}


class Data:
    """A public set with its vectors: train and test as (texts, labels, vectors)."""

    seen: tuple[np.ndarray, csr_matrix]  # the test messages beside the pool of the last business

    def __init__(self, name: str, base: str, home: Path) -> None:
        self.name = name
        encoder = Encoder(find_base(base, home), measured_speed, home)
        parts = [list(zip(*rows(DATA / name / f"{part}.csv"), strict=True)) for part in ("train", "test")]
        self.train, self.test = [(list(texts), np.array(labels), encoder.layers(texts)["last"]) for texts, labels in parts]

    def business(self, seed: int) -> tuple[Pool, list[str]]:
        """The messages of one draw, and the true label of each distinct one."""
        texts, labels, vectors = self.train
        some = np.sort(np.random.default_rng(seed).permutation(len(texts))[:len(texts) * 4 // 5])
        pool = Pool.of([texts[i] for i in some], vectors[some])
        first = np.unique(pool.distinct, return_index=True)[1]
        self.seen = pool.place(self.test[2]), pool.ngrams.transform(self.test[0])
        return pool, labels[some][first].tolist()


def session(data: Data, pool: Pool, true: list[str], choose: Choose, total: int, marks: tuple[int, ...]) -> dict[str, Any]:
    """Accuracy on the test rows after every 10 answers; at the marks what `tune` makes of them; the outlook at the end."""
    answers, apprentice = Answers(), None
    number: dict[str, int] = {}
    curve, tuned = {}, {}
    while len(answers.given) < total:
        for message in choose(pool, answers, apprentice, EVERY):
            label = true[pool.row[message]]
            if label not in number:
                answers, number[label] = answers.add(label)
            answers = answers.answer(message, number[label])
        apprentice = learn(pool, answers)
        n = len(answers.given)
        if n % 10 == 0:
            curve[n] = accuracy(data, pool, answers, apprentice)
        if n in marks:
            tuned[n] = by_tune(data, pool, answers)
    found = outlook(pool, answers, apprentice)
    return {"accuracy": curve, "tuned": tuned, "outlook": {
        "sample": found.right.n, "right": found.right.to_dict(), "useful_right": found.useful_right.value,
        "needed": found.needed, "doubled": found.doubled, "test_accuracy": curve[total]}}


def accuracy(data: Data, pool: Pool, answers: Answers, apprentice: Apprentice | None) -> float:
    """Of the apprentice on the test rows; 0 before there is one."""
    if apprentice is None:
        return 0.0
    names = np.array([answers.names[label] for label in apprentice.labels])
    scores = likeness(pool, *data.seen, apprentice.rows) @ apprentice.weights
    return round(float((names[scores.argmax(axis=1)] == data.test[1]).mean()), 4)


def by_tune(data: Data, pool: Pool, answers: Answers) -> float:
    """Accuracy on the test rows of the machine that `tune` fits on the same answers."""
    texts, labels, vectors = data.test
    kept = [pool.row[message] for message in answers.given]
    train = Train([pool.texts[i] for i in kept], np.array(list(answers.given.values())), tuple(answers.names.values()),
                  np.arange(len(kept)))
    machine = tune(train, {"last": pool.vectors[kept]}, 0)
    scores = machine.scores(texts, pool.place(vectors))
    return round(float((np.array(train.names)[scores.probabilities.argmax(axis=1)] == labels).mean()), 4)


def reached(curve: dict[int, float], wanted: float) -> float | None:
    """Answers at which the curve first reaches `wanted`, between its points; None where it never does."""
    before = (0, 0.0)
    for n, value in curve.items():
        if value >= wanted:
            return before[0] + (n - before[0]) * (wanted - before[1]) / (value - before[1])
        before = (n, value)
    return None


def compare(runs: list[dict[str, Any]], marks: tuple[int, ...]) -> dict[str, Any]:
    """Mean curves of each order, and at each mark how many answers each needs for what random order has there, by mean curves;
    the saving of single draws beside."""
    means = {order: {n: statistics.mean(run["accuracy"][n] for run in runs if run["order"] == order)
                     for n in runs[0]["accuracy"]} for order in ORDERS}
    lines = []
    for mark in marks:
        line: dict[str, Any] = {"random_answers": mark, "accuracy": round(means["random"][mark], 4)}
        for order in ORDERS:
            if order == "random":
                continue
            needed = reached(means[order], means["random"][mark])
            single = [reached(run["accuracy"], other["accuracy"][mark]) for run in runs if run["order"] == order
                      for other in runs if other["order"] == "random" and other["seed"] == run["seed"]]
            line[order] = {"answers": None if needed is None else round(needed),
                           "saved": None if needed is None else round(1 - needed / mark, 3),
                           "saved_in_each_draw": [None if one is None else round(1 - one / mark, 3) for one in single]}
        lines.append(line)
    return {"same_accuracy": lines, "curves": {order: {n: spread([run["accuracy"][n] for run in runs if run["order"] == order])
                                                       for n in means[order] if n % 25 == 0 or (n <= 50 and n % 10 == 0)}
                                               for order in ORDERS},
            "tuned": {order: {mark: spread([run["tuned"][mark] for run in runs if run["order"] == order]) for mark in marks}
                      for order in ORDERS},
            "outlook": [run["outlook"] | {"seed": run["seed"]} for run in runs if run["order"] == "ours"]}


def measure(name: str, home: Path) -> dict[str, Any]:
    base, total, marks = RUNS[name]
    data, runs = Data(name, base, home), []
    for seed in SEEDS:
        pool, true = data.business(seed)
        for order, make in ORDERS.items():
            began = time.perf_counter()
            runs.append({"order": order, "seed": seed} | session(data, pool, true, make(seed), total, marks))
            print(f"{name} {order} {seed}: {[runs[-1]['accuracy'][mark] for mark in marks]} tuned "
                  f"{list(runs[-1]['tuned'].values())} {time.perf_counter() - began:.0f} s", flush=True)
    return {"dataset": name, "base": base, "messages": len(data.train[0]) * 4 // 5, "labels": len(set(data.train[1].tolist())),
            "test": len(data.test[0])} | compare(runs, marks)


def seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def question_time() -> dict[str, Any]:
    """Times with 20,000 messages: real texts, each with a vector drawn around one of 60 centres; 600 answers, 12 labels."""
    texts = [text for name in ("banking77", "asdc_l1") for text, _label in rows(DATA / name / "train.csv")][:MESSAGES]
    rng = np.random.default_rng(0)
    vectors = (rng.normal(size=(60, 384))[rng.integers(60, size=len(texts))] + 1.5 * rng.normal(size=(len(texts), 384)))
    began = time.perf_counter()
    pool = Pool.of(texts, vectors.astype(np.float32))
    assert len(pool.covariance)
    made = time.perf_counter() - began
    answers = Answers()
    for i in range(12):
        answers, _label = answers.add(f"label {i}")
    for i, message in enumerate(pool.ids[:600]):
        answers = answers.answer(message, i % 12)
    lessons = [seconds(lambda: learn(pool, answers)) for _round in range(3)]
    apprentice = learn(pool, answers)
    times = sorted(seconds(partial(next_questions, pool, answers, apprentice, seed=i)) for i in range(ROUNDS))
    return {"messages": len(texts), "distinct": len(pool), "answers": 600, "pool_seconds": round(made, 1),
            "group_seconds": round(seconds(lambda: group(pool)), 1), "learn_seconds": round(statistics.median(lessons), 2),
            "question_milliseconds": {"median": round(1_000 * statistics.median(times), 1), "most": round(1_000 * times[-1], 1)}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", nargs="*", help=", ".join(RUNS))
    asked = parser.parse_args()
    # One thread, as in `tune`: two on matrices of a few hundred rows wait for each other.
    with threadpool_limits(1, user_api="blas"), tempfile.TemporaryDirectory() as temporary:
        timed = question_time()
        print(timed, flush=True)
        home = Path(os.environ.get("MACHIKOBA_HOME", temporary))
        lines = [measure(name, home) for name in asked.datasets or RUNS]
    write_result("sorting" if not asked.datasets else "sorting-" + "-".join(asked.datasets), {"time": timed, "sets": lines})


if __name__ == "__main__":
    main()
