"""Where a training stands, kept every half minute: one that was interrupted goes on from there with the same numbers."""
from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch

from machikoba.work import Work

EVERY_SECONDS = 30.0


class Checkpoint:
    """Keeps `parameters` and what `optimiser` remembers of them under `key`; `losses` of the steps done so far."""

    def __init__(self, work: Work, key: str, parameters: Sequence[torch.nn.Parameter], optimiser: torch.optim.Optimizer) -> None:
        self.work, self.key, self.parameters, self.optimiser = work, key, list(parameters), optimiser
        self._kept = time.monotonic()

    def resume(self) -> list[float]:
        """Puts back what was kept, if anything; the losses of the steps that need not be done again."""
        known = self.work.load(self.key)
        if known is None:
            return []
        steps = torch.tensor(float(len(known["losses"])))
        with torch.no_grad():
            for number, parameter in enumerate(self.parameters):
                parameter.copy_(torch.from_numpy(known[f"{number}"]))
                if f"{number}.exp_avg" in known:
                    state = {name: torch.from_numpy(known[f"{number}.{name}"]).to(parameter.device)
                             for name in ("exp_avg", "exp_avg_sq")}
                    self.optimiser.state[parameter] = {"step": steps.to(parameter.device, copy=True), **state}
        return [float(loss) for loss in known["losses"]]

    def keep(self, losses: Sequence[float], finished: bool) -> None:
        """Called after every step; writes now and then, and once it is finished. Raises StorageError."""
        if not finished and time.monotonic() < self._kept + EVERY_SECONDS:
            return
        tensors = {"losses": np.array(losses)}
        for number, parameter in enumerate(self.parameters):
            tensors[f"{number}"] = parameter.detach().cpu().numpy()
            state = self.optimiser.state.get(parameter)
            if state and not finished:
                tensors |= {f"{number}.{name}": state[name].cpu().numpy() for name in ("exp_avg", "exp_avg_sq")}
        self.work.save(self.key, tensors)
        self._kept = time.monotonic()
