"""Which rung is used, from what each did on rows that it had not seen."""
from __future__ import annotations

import numpy as np
import pytest

from machikoba.adapt.contract import Scores
from machikoba.prove.metrics import accuracy, coverage_interval
from machikoba.tune.estimate import Estimate
from machikoba.tune.ladder import OutOfFold, Tried, winner
from machikoba.tune.options import Options

N = 400


class Named:
    def __init__(self, name):
        self.name, self.base = name, None


def judged(name, wrong, met=False, rows=None):
    """A rung that is wrong on the rows `wrong`, and surer of a row the higher its number is."""
    rows = np.arange(N) if rows is None else rows
    correct = ~np.isin(np.arange(len(rows)), wrong)
    confidence = np.linspace(0, 1, len(rows))
    step = Tried(Named(name), Estimate(1, 1, 1, 1), met=met)
    step.unseen = OutOfFold(rows, Scores(np.zeros((len(rows), 1)), confidence), np.zeros(len(rows), int), confidence, correct)
    step.cv_accuracy = accuracy(np.zeros(len(rows), int), (~correct).astype(int))
    step.coverage = coverage_interval(confidence, correct, 0.05, seed=0)
    return step


def name_of(*tried):
    return winner(tried, Options()).rung.name


def test_what_met_the_target_wins():
    assert name_of(judged("words", np.arange(20)), judged("lora", np.arange(60), met=True)) == "lora"


def test_else_the_one_most_often_right():
    assert name_of(judged("words", np.arange(50)), judged("features", np.arange(30))) == "features"


def test_of_two_that_are_right_equally_often_the_one_that_answers_more():
    unsure, sure = judged("top", np.arange(45, 85)), judged("lora", np.arange(40, 80))
    assert (unsure.cv_accuracy.value, unsure.coverage.value) < (sure.cv_accuracy.value, sure.coverage.value)
    assert name_of(unsure, sure) == name_of(sure, unsure) == "lora"


def test_clearly_more_answers_beat_a_few_more_right_ones():
    knows_itself, often_right = judged("features", np.arange(100)), judged("top", np.arange(300, 390))
    assert knows_itself.coverage.low > often_right.coverage.high
    assert name_of(knows_itself, often_right) == "features"


def test_rungs_are_compared_on_rows_that_all_were_judged_on():
    everywhere = judged("features", np.arange(200, 300))  # wrong only on rows that the other was not judged on
    somewhere = judged("lora", np.arange(10), rows=np.arange(200))
    assert name_of(everywhere, somewhere) == "features"


@pytest.mark.parametrize("tried", [(), (Tried(Named("words"), Estimate(1, 1, 1, 1), skipped_because="no time"),)])
def test_nothing_judged(tried):
    assert winner(tried, Options()) is None
