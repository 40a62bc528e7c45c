"""The only code that runs the open model: texts in, pooled hidden states of chosen layers out."""
from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from machikoba.base.load import Base, load_model, load_tokenizer
from machikoba.base.speed import Speed
from machikoba.base.tokens import LEAST, TokenWeights

if TYPE_CHECKING:
    import torch

MAX_TOKENS = 512  # of one text; what follows is not read
BATCH_TOKENS = 2_048  # padded tokens that go through the model at once; 4,096 was 9% slower


class _DeepestReached(Exception):
    """Raised inside the forward pass once the deepest wanted layer is pooled: what lies above is never computed."""


class Trunk:
    """Runs a frozen base. Not thread-safe; `layers` are those that `pool` gives."""

    def __init__(self, base: Base, layers: Sequence[str], speed: Speed) -> None:
        import torch

        self.base, self.layers, self.speed = base, tuple(layers), speed
        torch.set_num_threads(speed.threads)
        self._tokenizer = load_tokenizer(base)
        self._model = load_model(base, speed.dtype)
        self._blocks = _blocks(self._model)
        self._special = sorted(set(self._tokenizer.all_special_ids))

    def learn_weights(self, texts: Sequence[str]) -> TokenWeights:
        """How much each token counts, from messages like those to come."""
        return TokenWeights.learn(self._tokens(texts))

    def pool(self, texts: Sequence[str], weights: TokenWeights) -> np.ndarray:
        """Weighted means of each text's hidden states, float32 (n, n_layers, d), in the order of `layers`.

        Special tokens count as much as the text's other tokens do on average; of a decoder, the first does not count,
        whose state is the same for every text. Layer "last" is the model's output; a number N is the output of the
        N-th block.
        """
        import torch

        table = torch.from_numpy(weights.table(self._model.get_input_embeddings().weight.shape[0]))
        encoded = self._tokens(texts)
        pooled: np.ndarray | None = None
        with torch.inference_mode():
            for rows in batches([len(ids) for ids in encoded]):
                values = self._forward([encoded[i] for i in rows], table)
                if pooled is None:
                    pooled = np.zeros((len(texts), *values.shape[1:]), dtype=np.float32)
                pooled[rows] = values
        if pooled is None:
            return np.zeros((0, len(self.layers), 0), dtype=np.float32)
        return pooled

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens that `pool` would read."""
        return sum(map(len, self._tokens(texts)))

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        # NFKC joins half-width kana with their marks, which no tokenizer's own map does for every base.
        prefixed = [self.base.prefix + unicodedata.normalize("NFKC", text) for text in texts]
        return self._tokenizer(prefixed, truncation=True, max_length=MAX_TOKENS)["input_ids"]

    def _forward(self, batch: list[list[int]], table: torch.Tensor) -> np.ndarray:
        import torch

        longest = max(map(len, batch))
        ids = torch.full((len(batch), longest), self._tokenizer.pad_token_id or 0)
        mask = torch.zeros((len(batch), longest), dtype=torch.long)
        for i, tokens in enumerate(batch):
            ids[i, :len(tokens)] = torch.tensor(tokens)
            mask[i, :len(tokens)] = 1
        weights = self._weights(ids, mask, table)
        found: dict[str, torch.Tensor] = {}

        def keep(name: str, states: torch.Tensor) -> None:
            found[name] = torch.einsum("bt,btd->bd", weights, states.to(torch.float32))

        with self._watching(keep, stop="last" not in self.layers):
            try:
                output = self._model(input_ids=ids, attention_mask=mask, **self._options())
                if "last" in self.layers:
                    keep("last", output.last_hidden_state)
            except _DeepestReached:
                pass
        return torch.stack([found[name] for name in self.layers], dim=1).numpy()

    def _weights(self, ids: torch.Tensor, mask: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Share of each token (b, t) in its text's mean; each row sums to 1."""
        import torch

        special = torch.isin(ids, torch.tensor(self._special)) & (mask == 1)
        plain = torch.where(special | (mask == 0), 0.0, table[ids])
        average = plain.sum(dim=1, keepdim=True) / (plain > 0).sum(dim=1, keepdim=True).clamp(min=1)
        weights = torch.where(special, average.clamp(min=LEAST), plain)
        if self.base.kind == "decoder" and ids.shape[1] > 1:
            weights[:, 0] = 0
        return weights / weights.sum(dim=1, keepdim=True).clamp(min=1e-9)

    def _options(self) -> dict[str, Any]:
        return {"use_cache": False} if self.base.kind == "decoder" else {}

    def _watching(self, keep: Any, stop: bool) -> Any:
        """A context in which the wanted blocks report their output, and the deepest ends the pass if `stop`."""
        from contextlib import ExitStack

        stack = ExitStack()
        wanted = sorted(int(name) for name in self.layers if name != "last")
        for number in wanted:
            def hook(_module: Any, _inputs: Any, output: Any, number: int = number) -> None:
                keep(str(number), output[0] if isinstance(output, tuple) else output)
                if stop and number == wanted[-1]:
                    raise _DeepestReached

            stack.callback(self._blocks[number - 1].register_forward_hook(hook).remove)
        return stack


def batches(lengths: Sequence[int], budget: int = BATCH_TOKENS) -> Iterator[np.ndarray]:
    """Rows in batches of at most `budget` padded tokens, longest first, so that little is padding."""
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // max(1, lengths[order[start]]))
        yield order[start:start + size]
        start += size


def _blocks(model: Any) -> Any:
    """The list of transformer blocks: the longest module list whose length is the number of layers."""
    import torch

    depth = getattr(model.config, "num_hidden_layers", None) or model.config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == depth:
            return module
    return []
