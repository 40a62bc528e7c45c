"""The model's output layer: how likely each next token is, without ever holding the scores of a whole batch.

A small model's vocabulary is larger than all its blocks together. Its rows stay in the file; they are read in chunks,
once for each block of positions, and given back to the system after each.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from machikoba.base.load import Base
from machikoba.base.weights import Stored, stored
from machikoba.errors import BaseError
from machikoba.language import _

HEADS = ("lm_head.weight", "embed_out.weight", "output.weight")  # names that architectures give it where it is its own
CHUNK_ROWS = 8_192  # of the vocabulary at a time
BLOCK_ROWS = 64  # positions at a time
FILLED = 16


@dataclass
class OutputLayer:
    """weight (vocabulary, d) in its file, bias (vocabulary,) or None. softcap: scores are cap · tanh(score / cap);
    0: as they are."""

    weight: Stored
    bias: torch.Tensor | None
    softcap: float
    dtype: torch.dtype
    _held: torch.Tensor | None = field(default=None, repr=False)

    @classmethod
    def of(cls, base: Base, dtype: str) -> OutputLayer:
        """The output layer of a decoder. Raises BaseError(base_no_output)."""
        tensors = stored(base.folder) or {}
        config = base.config()
        size = config.get("vocab_size")
        names = [name for name, tensor in tensors.items() if len(tensor.shape) == 2 and tensor.shape[0] == size]
        own = [name for name in names if name.endswith(HEADS)]
        chosen = own[:1] or ([] if config.get("tie_word_embeddings") is False else names[:1])
        if base.kind != "decoder" or not chosen or config.get("logit_scale") or config.get("logits_scaling"):
            raise BaseError("base_no_output", _("The model in {folder} cannot write.").format(folder=base.folder),
                            expected=_("a causal language model with its output layer"),
                            found=config.get("model_type", base.kind),
                            next=_("Choose another with --base; `machikoba bases` lists them."))
        bias = tensors.get(own[0].replace("weight", "bias")) if own else None
        wanted = getattr(torch, dtype)
        return cls(tensors[chosen[0]], bias.read().to(wanted) if bias else None,
                   float(config.get("final_logit_softcapping") or 0.0), wanted)

    def loss(self, states: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Sum of -ln P(token) over positions: states (n, d) before the output layer, tokens (n,) that follow."""
        total: torch.Tensor = _Loss.apply(states, tokens, self)
        return total

    def chunks(self, device: torch.device) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor | None]]:
        """The vocabulary in parts: which rows, their weights (k, d) and biases (k,) or None."""
        size = self.weight.shape[0]
        if device.type != "cpu":  # a GPU holds all of it
            if self._held is None:
                self._held = self.weight.read().to(device, self.dtype)
            yield slice(0, size), self._held, None if self.bias is None else self.bias.to(device)
            return
        for start in range(0, size, CHUNK_ROWS):
            part = slice(start, min(start + CHUNK_ROWS, size))
            yield part, self.weight.mapped(part).to(self.dtype), None if self.bias is None else self.bias[part]

    def rows(self, tokens: torch.Tensor) -> torch.Tensor:
        """The weights (n, d) of some tokens."""
        if self._held is not None:
            return self._held[tokens]
        return self.weight.mapped()[tokens].to(self.dtype)


class _Loss(torch.autograd.Function):
    """The loss, with its gradient formed at once: what a backward pass would need is more than what it gives."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, tokens: torch.Tensor, layer: OutputLayer) -> torch.Tensor:
        blocks = [_block(states[start:start + BLOCK_ROWS], tokens[start:start + BLOCK_ROWS], layer, ctx.needs_input_grad[0])
                  for start in range(0, len(states), BLOCK_ROWS)]
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(torch.cat([grad for _loss, grad in blocks if grad is not None]).to(states.dtype))
        return torch.stack([loss for loss, _grad in blocks]).sum()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (grad,) = ctx.saved_tensors
        return grad * grads[0].to(grad), None, None


def _block(states: torch.Tensor, tokens: torch.Tensor, layer: OutputLayer,
           wants_grad: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The loss of some positions and its gradient (n, d) in float32.

    One pass over the vocabulary: sums of exp(score - highest so far), and of the same times the weights, are scaled down
    whenever a higher score turns up. Positions are filled up to a multiple of FILLED: a CPU library makes a kernel of its own
    for each size of a product.
    """
    real, filled = len(states), -len(states) % FILLED
    states, tokens = torch.nn.functional.pad(states, (0, 0, 0, filled)), torch.nn.functional.pad(tokens, (0, filled))
    highest = torch.full((len(states), 1), -torch.inf, device=states.device)
    total, wanted = torch.zeros_like(highest), torch.zeros(len(states), device=states.device)
    pull = torch.zeros(states.shape, dtype=torch.float32, device=states.device) if wants_grad else None
    for part, weight, bias in layer.chunks(states.device):
        scores, slope = _scores(states, weight, bias, layer.softcap)
        inside = (tokens >= part.start) & (tokens < part.stop)
        wanted[inside] = scores[inside, tokens[inside] - part.start]
        higher = torch.maximum(highest, scores.amax(dim=1, keepdim=True))
        shrunk = torch.exp(highest - higher)
        chances = scores.sub_(higher).exp_()
        total = total * shrunk + chances.sum(dim=1, keepdim=True)
        highest = higher
        if pull is not None:
            weighed = (chances if slope is None else chances.mul_(slope)).to(layer.dtype)
            pull.mul_(shrunk).add_(weighed @ weight)
    loss = (highest[:, 0] + total[:, 0].log() - wanted)[:real].sum()
    if pull is None:
        return loss, None
    right = layer.rows(tokens).float()
    if layer.softcap:
        right *= 1.0 - (wanted / layer.softcap).square().unsqueeze(1)
    return loss, pull.div_(total).sub_(right)[:real]


def _scores(states: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None,
            softcap: float) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Scores (n, k) in float32, and how steeply they follow what they are made of where they are capped."""
    scores = (states @ weight.t()).float()
    if bias is not None:
        scores += bias.float()
    if not softcap:
        return scores, None
    scores = softcap * torch.tanh(scores / softcap)
    return scores, 1.0 - (scores / softcap).square()
