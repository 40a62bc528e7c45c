"""What a rung will cost, before anything is spent: processor seconds, minutes, memory, yen."""
from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass

from machikoba.adapt.choose import FOLDED_ROWS, MAX_ANCHORS
from machikoba.adapt.closed_form import BLOCK
from machikoba.adapt.contract import Diverged, Rung, Train
from machikoba.adapt.features import FeaturesRung
from machikoba.adapt.lora import FEW_FOLDS, KEPT, MANY_FOLDS, MAX_JUDGED_ROWS, MAX_LEARNT_ROWS, LoraRung
from machikoba.base.load import Base
from machikoba.settings import Prices

FITS = 6  # five folds and the refit
# Fitted on bench/results/classify.json and estimates.json, which have estimate and measurement of every run: seconds to
# start, of each character, and of each row x anchor x (label + 30), for one fit.
FIT_SECONDS = {"words": (0.03, 6.8e-6, 1.7e-9), "features": (0.06, 4.2e-6, 1.39e-9)}
LOAD_SECONDS = 2.9  # the libraries of a base, and its weights
EFFICIENCY, TOKEN_SECONDS = 0.6, 1e-4  # share of the measured matrix speed in a model's products; the rest of its work
TRAINING_EFFICIENCY = 0.33  # share that the whole of a training reaches
READING = 0.3  # of the time that a token takes in training, when it is only read
TRAINING_MIB = 250  # updates, their gradients, and kernels for both directions
ACTIVATION_MIB = 0.0026  # kept for the way back, for each token and megaflop
WORTH_REHEARSING = 30.0  # seconds from which a dry run of two batches pays
MANY_WORDS = 60_000  # words of a vocabulary that holds those of most scripts
WORDS_MIB = 200  # Python and the arithmetic
FITTING_MIB = 120  # what fitting takes beside the base


@dataclass(frozen=True)
class Estimate:
    """cpu_seconds: all cores together; wall_seconds: on the clock; peak_mib: memory of the whole process."""

    cpu_seconds: float
    wall_seconds: float
    peak_mib: int
    yen: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def estimate(rung: Rung, train: Train, prices: Prices) -> Estimate:
    """The cost of judging `rung` on `train` by cross-validation and refitting it."""
    n, k = len(train), len(train.names)
    characters = sum(map(len, train.texts))
    core = min(n, MAX_ANCHORS)
    kernels_mib = int((core * 40 + (min(n, BLOCK) * 12 if n > core else 0)) * core / 2**20)
    if isinstance(rung, LoraRung):
        return _training(rung, train, prices, kernels_mib)
    start, per_character, per_product = FIT_SECONDS[rung.name]
    fits = FITS * (start + per_character * characters + per_product * n * core * (k + 30))
    wall, cpu, mib = fits, fits, WORDS_MIB + kernels_mib
    if isinstance(rung, FeaturesRung):
        speed = rung.encoder.speed
        base = rung.encoder.base
        reading = _tokens(train, base) * (base.megaflops_per_token / 1e3 / (speed.gigaflops * EFFICIENCY) + TOKEN_SECONDS)
        wall, cpu = wall + LOAD_SECONDS + reading, cpu + LOAD_SECONDS + reading * speed.threads
        mib = (base.memory_mib or _memory(rung)) + FITTING_MIB + kernels_mib
    return Estimate(round(cpu, 1), round(wall, 1), mib, round(prices.yen(wall), 3))


def rehearsed(rung: Rung, train: Train, prices: Prices, seed: int, before: Estimate) -> Estimate | None:
    """The cost after a dry run of two batches, for what would take long; None where no rehearsal is needed."""
    if not isinstance(rung, LoraRung) or before.wall_seconds < WORTH_REHEARSING:
        return None
    with contextlib.suppress(Diverged):  # if it diverges so soon, the training itself will tell
        per_token, tokens = rung.rehearse(train, seed)
        return _trained(rung, train, prices, before.peak_mib, tokens, per_token)
    return None


def _training(rung: LoraRung, train: Train, prices: Prices, kernels_mib: int) -> Estimate:
    """The cost of a rung that trains, by what this machine has been measured to compute."""
    speed, base = rung.encoder.speed, rung.encoder.base
    recipe = rung.recipe(len(train))
    mib = (base.memory_mib or _memory(rung)) + TRAINING_MIB + kernels_mib
    mib += int(recipe.batch_tokens * base.megaflops_per_token * ACTIVATION_MIB)
    # Training needs the products of a forward pass twice: once more for the gradients of what flows through.
    per_token = 2 * base.megaflops_per_token / 1e3 / speed.gigaflops / TRAINING_EFFICIENCY * (1 - recipe.frozen)
    return _trained(rung, train, prices, mib, _tokens(train, base), per_token)


def _trained(rung: LoraRung, train: Train, prices: Prices, mib: int, tokens: float, per_token: float) -> Estimate:
    """Cross-fitting and the last training at `per_token` seconds, with the passes that give features."""
    n, recipe, few = len(train), rung.recipe(len(train)), len(train) <= FOLDED_ROWS
    folds, judged = (FEW_FOLDS, n) if few else (1, min(n, MAX_LEARNT_ROWS + MAX_JUDGED_ROWS))
    trainings = (FEW_FOLDS - 1 if few else 1 - 1 / MANY_FOLDS) + 1.0  # in rows trained on
    passes = folds * len(KEPT) * judged / n + 1.0  # each gives every row's features once
    passes += recipe.frozen / (1 - recipe.frozen)  # what enters the blocks that train is computed once
    start, per_character, per_product = FIT_SECONDS["features"]
    start += per_character * sum(map(len, train.texts))
    width = min(n, MAX_ANCHORS) * (len(train.names) + 30)
    fits = folds * len(KEPT) * (start + per_product * judged * width) + start + per_product * n * width
    wall = LOAD_SECONDS + fits + tokens * per_token * (recipe.epochs * trainings + passes * READING)
    cpu = LOAD_SECONDS + fits + (wall - LOAD_SECONDS - fits) * rung.encoder.speed.threads
    return Estimate(round(cpu, 1), round(wall, 1), mib, round(prices.yen(wall), 3))


def _tokens(train: Train, base: Base) -> float:
    """About how many tokens the base makes of the texts: many letters of the Latin script are one, few of others."""
    latin = sum(character.isascii() for text in train.texts for character in text)
    others = sum(map(len, train.texts)) - latin
    known = int(base.config().get("vocab_size", 0)) > MANY_WORDS
    per_other = 0.6 if known else 1.0  # a small vocabulary has no words of other scripts, only characters
    return 0.25 * latin + per_other * others + (5 if base.prefix else 2) * len(train)


def _memory(rung: FeaturesRung | LoraRung) -> int:
    weights = sum(path.stat().st_size for path in rung.encoder.base.folder.glob("*.safetensors"))
    return 500 + weights * 2 // 2**20  # read as float16, held as up to float32
