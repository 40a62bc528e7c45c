"""What a rung will cost, before anything is spent: processor seconds, minutes, memory, yen."""
from __future__ import annotations

from dataclasses import asdict, dataclass

from machikoba.adapt.choose import FOLDED_ROWS, MAX_ANCHORS
from machikoba.adapt.contract import Rung, Train
from machikoba.adapt.features import FeaturesRung
from machikoba.adapt.lora import FEW_FOLDS, KEPT, MANY_FOLDS, LoraRung
from machikoba.adapt.training_recipe import recipe_for
from machikoba.settings import Prices

FITS = 6  # five folds and the refit
# Fitted on bench/results/classify.json, which has estimate and measurement of every run: seconds to start, of each
# character, and of each row x anchor x (label + 30), for one fit.
FIT_SECONDS = {"words": (0.06, 9.7e-6, 8.0e-10), "features": (0.06, 0.0, 1.54e-9)}
LOAD_SECONDS = 3.4  # the libraries of a base, and its weights
EFFICIENCY = 0.44  # share of the measured matrix speed that a whole model reaches on short messages
TOKENS_PER_CHARACTER = 0.75  # between Japanese (about 0.7) and other scripts; a prefix adds a few
PREFIX_TOKENS = 6
TRAINING_EFFICIENCY = 0.30  # the same in training
TRAINING_MIB = 250  # updates, their gradients, and kernels for both directions
ACTIVATION_MIB = 0.0026  # kept for the way back, for each token and megaflop
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
    kernels_mib = int(core * core * 40 / 2**20)
    if isinstance(rung, LoraRung):
        return _training(rung, train, prices, kernels_mib)
    start, per_character, per_product = FIT_SECONDS[rung.name]
    fits = FITS * (start + per_character * characters + per_product * n * core * (k + 30))
    wall, cpu, mib = fits, fits, WORDS_MIB + kernels_mib
    if isinstance(rung, FeaturesRung):
        speed = rung.encoder.speed
        tokens = characters * TOKENS_PER_CHARACTER + PREFIX_TOKENS * n
        reading = tokens * rung.encoder.base.megaflops_per_token / 1e3 / (speed.gigaflops * EFFICIENCY)
        wall, cpu = wall + LOAD_SECONDS + reading, cpu + LOAD_SECONDS + reading * speed.threads
        mib = (rung.encoder.base.memory_mib or _memory(rung)) + FITTING_MIB + kernels_mib
    return Estimate(round(cpu, 1), round(wall, 1), mib, round(prices.yen(wall), 3))


def _training(rung: LoraRung, train: Train, prices: Prices, kernels_mib: int) -> Estimate:
    """The cost of the rung `lora`: cross-fitting and the last training, each with the passes that give features."""
    speed, base = rung.encoder.speed, rung.encoder.base
    tokens = sum(map(len, train.texts)) * TOKENS_PER_CHARACTER + PREFIX_TOKENS * len(train)
    recipe = recipe_for(len(train))
    trainings = (FEW_FOLDS - 1 if len(train) <= FOLDED_ROWS else 1 - 1 / MANY_FOLDS) + 1.0  # in rows trained on
    passes = (FEW_FOLDS if len(train) <= FOLDED_ROWS else 1) * len(KEPT) + 3.0  # each gives every row's features once
    forward = tokens * base.megaflops_per_token / 1e3 / speed.gigaflops
    # Training needs the products of a forward pass twice: once more for the gradients of what flows through.
    wall = LOAD_SECONDS + forward * (2 * recipe.epochs * trainings / TRAINING_EFFICIENCY + passes / EFFICIENCY)
    cpu = LOAD_SECONDS + (wall - LOAD_SECONDS) * speed.threads
    mib = (base.memory_mib or _memory(rung)) + TRAINING_MIB + kernels_mib
    mib += int(recipe.batch_tokens * base.megaflops_per_token * ACTIVATION_MIB)
    return Estimate(round(cpu, 1), round(wall, 1), mib, round(prices.yen(wall), 3))


def _memory(rung: FeaturesRung | LoraRung) -> int:
    weights = sum(path.stat().st_size for path in rung.encoder.base.folder.glob("*.safetensors"))
    return 500 + weights * 2 // 2**20  # read as float16, held as up to float32
