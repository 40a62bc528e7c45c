"""A base that is loaded when it is first needed and reads no text twice."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from machikoba.base.load import Base
from machikoba.base.speed import Speed
from machikoba.base.tokens import TokenWeights
from machikoba.work import NoWork, Work, key

if TYPE_CHECKING:
    from machikoba.base.trunk import Trunk

Progress = Callable[[int, int], None]
REPORTED = 256  # texts between two reports of progress


class Encoder:
    """Pooled features of texts, remembered as long as the encoder lives.

    speed: called when the base is first needed. progress: called with (texts read, texts to read). weights: how much each
    token counts, learnt from the texts of the first call. work: keeps what was read for a run that goes on later.
    """

    def __init__(self, base: Base, speed: Callable[[Path], Speed], home: Path, progress: Progress | None = None,
                 work: Work | None = None) -> None:
        self.base, self._speed, self._home, self.progress, self.work = base, speed, home, progress, work or NoWork()
        self._trunk: Trunk | None = None
        self._known: dict[str, np.ndarray] = {}
        self.weights: TokenWeights | None = None

    @cached_property
    def speed(self) -> Speed:
        """The number format and threads in use."""
        return self._speed(self._home)

    @property
    def scratch(self) -> Path:
        """A folder for files that live as long as a process."""
        return self._home / "cache"

    def rest(self) -> None:
        """Takes the base out of memory; what it has read stays known."""
        self._trunk = None

    def layers(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Raw features (n, d) of `texts` by layer of the base."""
        self.read(texts)
        stacked = np.stack([self._known[text] for text in texts])
        return {layer: stacked[:, i] for i, layer in enumerate(self.base.layers)}

    def read(self, texts: Sequence[str]) -> None:
        """Reads those of `texts` that it has not read yet."""
        fresh = [text for text in dict.fromkeys(texts) if text not in self._known]
        if fresh:
            if self._trunk is None:
                from machikoba.base.trunk import Trunk

                self._trunk = Trunk(self.base, self.base.layers, self.speed, reading=True)
            self.weights = self.weights or self._trunk.learn_weights(fresh)
            # Texts of like length go together, whatever block they fall into.
            fresh.sort(key=len)
            for start in range(0, len(fresh), REPORTED):
                block = fresh[start:start + REPORTED]
                self._known.update(zip(block, self._features(block, self._trunk, self.weights), strict=True))
                if self.progress:
                    self.progress(min(start + REPORTED, len(fresh)), len(fresh))

    def _features(self, block: list[str], trunk: Trunk, weights: TokenWeights) -> np.ndarray:
        """Features (n, n_layers, d) of texts, read now or by the run that this one goes on with."""
        place = key(self.base.sha256, self.base.layers, self.speed.dtype, self.speed.threads, weights.save(), block)
        known = self.work.load(place)
        if known is not None:
            return known["features"]
        features = trunk.pool(block, weights)
        self.work.save(place, {"features": features})
        return features
