"""The only code that runs the open model: texts in, pooled hidden states of chosen layers out."""
from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from machikoba.base.load import Base, load_model, load_tokenizer
from machikoba.base.speed import Speed
from machikoba.base.tokens import TokenWeights, shares
from machikoba.base.weights import not_finite
from machikoba.language import _
from machikoba.memory import trim

if TYPE_CHECKING:
    import torch

    from machikoba.base.direct import Direct
    from machikoba.base.product import Rows

MAX_TOKENS = 2_048  # of one text; what follows is not read
TOKENISED = 1_024  # texts at a time
BATCH_TOKENS = 480  # padded tokens that go through the model at once: what stays in the caches (docs/log.md)
GPU_BATCH_TOKENS = 16_384
LONGEST_DIRECT = 32  # tokens of a text alone, up to which it is read without padding, see direct.py
TRIED_TOKENS = 24  # in two texts, on which the form for reading is tried
WIDTHS = (4, 5, 6, 8, 10, 12, 15, 16, 20, 24, 30, 40, 48, 60, 80, 96, 120, 160, 240, 320, 480, 512, 768, 1_024, 1_536, 2_048)


class _DeepestReached(Exception):
    """Raised inside the forward pass once the deepest wanted layer is pooled: what lies above is never computed."""


Weigh = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Entering:
    """What goes into block number `first` (counted from 0): of each text (tokens, d)."""

    first: int
    states: Sequence[torch.Tensor]


class Trunk:
    """Runs a base. Not thread-safe; `layers` are those that `pool` gives.

    both_ways: every token of a decoder sees the whole message. reading: in the form for reading alone, which is faster and
    cannot be trained. Raises BaseError.
    """

    def __init__(self, base: Base, layers: Sequence[str], speed: Speed, both_ways: bool = False, reading: bool = False) -> None:
        self.base, self.layers, self.speed, self.both_ways, self.reading = base, tuple(layers), speed, both_ways, reading
        self.batch_tokens = BATCH_TOKENS if speed.device == "cpu" else GPU_BATCH_TOKENS
        self.left_slow: list[str] = []  # modules of the model that have no faster form
        self._linears: frozenset[str] = frozenset()
        self._direct: Direct | None = None
        self._gives_tuples: bool | None = None
        self._tokenizer = load_tokenizer(base)
        self._padding = self._tokenizer.pad_token_id or 0
        self._longest = min(MAX_TOKENS, base.max_tokens)
        self._special = sorted(set(self._tokenizer.all_special_ids))

    @cached_property
    def model(self) -> Any:
        """The model, loaded when it is first needed. Raises BaseError."""
        import torch

        from machikoba.base import attention, fast

        torch.set_num_threads(self.speed.threads)
        attention.register()
        with torch.inference_mode(False):  # whoever reads first, others may train
            model = load_model(self.base, self.speed.dtype, attention.BOTH_WAYS if self.both_ways else attention.AS_MADE)
            self.left_slow = fast.hasten(model, exact=self.speed.dtype == "float32")
            model = model.to(self.speed.device)
            if self.reading:
                self._settle(model)
        return model

    @cached_property
    def rows(self) -> Rows:
        """Which rows of a batch are read with which updates, if this is for reading."""
        from machikoba.base.product import Rows

        return Rows()

    @property
    def linears(self) -> frozenset[str]:
        """Names of the linear layers of the blocks, if this is for reading. Raises BaseError."""
        _model = self.model
        return self._linears

    def _settle(self, model: Any) -> None:
        """Puts a model that was just loaded into the form for reading."""
        import torch

        from machikoba.base import lean
        from machikoba.base.direct import Direct

        ids = torch.arange(TRIED_TOKENS).remainder(_vocabulary(model)).reshape(2, -1).to(self.speed.device)
        mask = torch.ones_like(ids)
        mask[1, -2:] = 0  # one with padding
        with torch.no_grad():
            blocks, options = _named_blocks(model), self._options()
            self._linears = lean.settle(blocks, lambda: model(input_ids=ids, attention_mask=mask, **options), self.rows,
                                        exact=self.speed.dtype == "float32")
            trim()
            self._direct = Direct.of(model, [block for _name, block in blocks], options)

    @property
    def vocabulary(self) -> int:
        """Number of tokens that the model knows."""
        return _vocabulary(self.model)

    def drop_tokenizer(self) -> None:
        """Frees the tokenizer, for work on texts that are tokenised already; it is loaded again when needed."""
        self._tokenizer = None

    def blocks(self, first: int = 0) -> list[tuple[str, torch.nn.Module]]:
        """The transformer blocks from number `first` on, with their names in the model."""
        return _named_blocks(self.model)[first:]

    def learn_weights(self, texts: Sequence[str]) -> TokenWeights:
        """How much each token counts, from messages like those to come."""
        return TokenWeights.learn(tokens for block in self._blocks_of_tokens(texts) for tokens in block)

    def pool(self, texts: Sequence[str], weights: TokenWeights) -> np.ndarray:
        """Weighted means of each text's hidden states, float32 (n, n_layers, d), in the order of `layers`.

        Special tokens count as much as the text's other tokens do on average; of a decoder, the first does not count,
        whose state is the same for every text. Layer "last" is the model's output; a number N is the output of the
        N-th block.
        """
        return self.pool_tokens(self.tokens(texts), weights)

    def pool_tokens(self, encoded: Sequence[Sequence[int]], weights: TokenWeights,
                    entering: Callable[[Sequence[Sequence[int]]], Entering] | None = None) -> np.ndarray:
        """`pool` for texts that are tokenised already; `entering` gives what is known of a batch, see `forward`."""
        import torch

        pooled: np.ndarray | None = None
        with torch.inference_mode():
            for rows in batches([len(ids) for ids in encoded], self.batch_tokens):
                batch = [encoded[i] for i in rows]
                values = self.forward(batch, weights.of, entering(batch) if entering else None).cpu().numpy()
                if not np.isfinite(values).all():
                    raise not_finite(self.base.folder, _("what it makes of a message"))
                if pooled is None:
                    pooled = np.zeros((len(encoded), *values.shape[1:]), dtype=np.float32)
                pooled[rows] = values
        if pooled is None:
            return np.zeros((0, len(self.layers), 0), dtype=np.float32)
        return pooled

    def count_tokens(self, texts: Sequence[str]) -> int:
        """Tokens that `pool` would read."""
        return sum(len(tokens) for block in self._blocks_of_tokens(texts) for tokens in block)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens that the model reads of each text, special ones included."""
        return [tokens for block in self._blocks_of_tokens(texts) for tokens in block]

    def _blocks_of_tokens(self, texts: Sequence[str]) -> Iterator[list[list[int]]]:
        """`tokens` of some texts after the other: what else a tokenizer says of them takes 10 KB of memory for each."""
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.base)
        for start in range(0, len(texts), TOKENISED):
            # NFKC joins half-width kana with their marks, which no tokenizer's own map does for every base.
            prefixed = [self.base.prefix + unicodedata.normalize("NFKC", text) for text in texts[start:start + TOKENISED]]
            yield self._tokenizer(prefixed, truncation=True, max_length=self._longest)["input_ids"]

    def forward(self, batch: Sequence[Sequence[int]], weigh: Weigh,
                entering: Entering | None = None) -> torch.Tensor:
        """Pooled states (b, n_layers, d) in float32 of tokenised texts. See `pool`.

        weigh: gives the weights (b, t) of plain tokens, whose ids it is asked with, padded (b, t).
        entering: what `entering` gave for these texts; the blocks below are then not computed again.
        """
        import torch

        torch.set_num_threads(self.speed.threads)  # of the whole process: a base read with another number may have set it since
        ids, mask = self._padded(batch)
        skipped = self.base.kind == "decoder" and ids.shape[1] > 1
        weights = torch.from_numpy(shares(weigh(ids), mask == 1, np.isin(ids, self._special), skipped)).to(self.speed.device)
        found: dict[str, torch.Tensor] = {}

        def keep(name: str, states: torch.Tensor) -> None:
            found[name] = torch.bmm(weights.unsqueeze(1), states.to(torch.float32)).squeeze(1)

        if self._direct is not None and len(batch) == 1 and ids.shape[1] <= LONGEST_DIRECT:
            for name, states in self._direct.read(torch.from_numpy(ids).to(self.speed.device), self.layers):
                keep(name, states)
        else:
            with self._watching(keep, stop="last" not in self.layers), self._skipping(entering, ids.shape[1]):
                try:
                    output = self.model(**self._asked(ids, mask))
                    if "last" in self.layers:
                        keep("last", output.last_hidden_state)
                except _DeepestReached:
                    pass
        return torch.stack([found[name] for name in self.layers], dim=1)

    def entering(self, batch: Sequence[Sequence[int]], first: int) -> Entering:
        """What goes into block number `first` for tokenised texts, of each text (tokens, d) in the model's number format."""
        import torch

        found: list[torch.Tensor] = []

        def watch(_module: Any, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
            found.append(inputs[0] if inputs else options["hidden_states"])
            raise _DeepestReached

        with torch.inference_mode():
            hook = self.blocks(first)[0][1].register_forward_pre_hook(watch, with_kwargs=True)
            try:
                self.model(**self._asked(*self._padded(batch)))
            except _DeepestReached:
                pass
            finally:
                hook.remove()
        return Entering(first, [found[0][i, :len(tokens)] for i, tokens in enumerate(batch)])

    def last(self, batch: Sequence[Sequence[int]]) -> torch.Tensor:
        """The model's output (b, t, d) for tokenised texts, t at least as long as the longest."""
        states: torch.Tensor = self.model(**self._asked(*self._padded(batch))).last_hidden_state
        return states

    def pair_tokens(self, prompt: str, completion: str) -> tuple[list[int], int]:
        """Tokens of a prompt and its completion with the sign that ends a text, and how many are the prompt's.

        What is too long loses the beginning of its prompt, then the end of its completion.
        """
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.base)
        before = self._tokenizer(prompt)["input_ids"]
        end = self._tokenizer.eos_token_id
        if before and before[-1] == end:  # some tokenizers end every text; this one goes on
            before = before[:-1]
        after = self._tokenizer(completion, add_special_tokens=False)["input_ids"] + ([] if end is None else [end])
        after = after[:self._longest - 1]
        room = self._longest - len(after)
        if len(before) > room:
            before = before[:1] + before[len(before) - room + 1:] if room > 1 else before[-room:]
        if not before:  # a model that marks no beginning needs something to go on from
            before = [end if end is not None else self._padding]
            after = after[:self._longest - 1]
        return before + after, len(before)

    def _padded(self, batch: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and mask, int64 (b, t), of tokenised texts."""
        longest = max(map(len, batch))
        if self._direct is None or len(batch) > 1 or longest > LONGEST_DIRECT:
            longest = min(width(longest), self._longest)
        ids, mask = np.full((len(batch), longest), self._padding), np.zeros((len(batch), longest), dtype=np.int64)
        for i, tokens in enumerate(batch):
            ids[i, :len(tokens)] = tokens
            mask[i, :len(tokens)] = 1
        return ids, mask

    def _asked(self, ids: np.ndarray, mask: np.ndarray) -> dict[str, Any]:
        """What the model is called with."""
        import torch

        on_device = (torch.from_numpy(array).to(self.speed.device) for array in (ids, mask))
        return dict(zip(("input_ids", "attention_mask"), on_device, strict=True)) | self._options()

    @contextmanager
    def _skipping(self, entering: Entering | None, longest: int) -> Iterator[None]:
        """Lets every block below `entering.first` hand on what enters there instead of computing it."""
        import torch

        if entering is None:
            yield
            return
        states = torch.nn.utils.rnn.pad_sequence(list(entering.states), batch_first=True).to(self.speed.device)
        states = torch.nn.functional.pad(states, (0, 0, 0, longest - states.shape[1]))
        skipped = [block for _name, block in self.blocks()[:entering.first]]
        if self._gives_tuples is None:
            self._gives_tuples = self._asked_for_tuples()
        for block in skipped:
            block.forward = lambda *_a, **_k: (states, None) if self._gives_tuples else states
        try:
            yield
        finally:
            for block in skipped:
                del block.forward

    def _asked_for_tuples(self) -> bool:
        """Whether a block of this architecture gives its states alone or as the first of several things."""
        import torch

        seen: list[bool] = []

        def look(_module: Any, _inputs: Any, output: Any) -> None:
            seen.append(isinstance(output, tuple))
            raise _DeepestReached

        hook = self.blocks()[0][1].register_forward_hook(look)
        try:
            with torch.inference_mode():
                self.model(input_ids=torch.zeros((1, 2), dtype=torch.long, device=self.speed.device), **self._options())
        except _DeepestReached:
            pass
        finally:
            hook.remove()
        return seen[0]

    def _options(self) -> dict[str, Any]:
        return {"use_cache": False} if self.base.kind == "decoder" else {}

    def _watching(self, keep: Any, stop: bool) -> Any:
        """A context in which the wanted blocks report their output, and the deepest ends the pass if `stop`."""
        from contextlib import ExitStack

        stack, (_name, blocks) = ExitStack(), _blocks(self.model)
        wanted = sorted(int(name) for name in self.layers if name != "last")
        for number in wanted:
            def hook(_module: Any, _inputs: Any, output: Any, number: int = number) -> None:
                keep(str(number), output[0] if isinstance(output, tuple) else output)
                if stop and number == wanted[-1]:
                    raise _DeepestReached

            stack.callback(blocks[number - 1].register_forward_hook(hook).remove)
        return stack


def batches(lengths: Sequence[float], budget: int = BATCH_TOKENS) -> Iterator[np.ndarray]:
    """Rows in batches of at most `budget` tokens with their padding, longest first, so that little is padding."""
    order = np.argsort(-np.asarray(lengths, dtype=np.float64), kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // width(int(lengths[order[start]])))
        yield order[start:start + size]
        start += size


def width(length: int) -> int:
    """The length that a text of `length` tokens is padded to: one of a few, most of which divide the budgets.

    A CPU library makes a kernel of its own for each size of a product, which takes time and some MiB (docs/log.md).
    """
    return next((w for w in WIDTHS if w >= length), length)


def _vocabulary(model: Any) -> int:
    return int(model.get_input_embeddings().num_embeddings)


def _named_blocks(model: Any) -> list[tuple[str, torch.nn.Module]]:
    """The transformer blocks with their names."""
    name, blocks = _blocks(model)
    return [(f"{name}.{i}", block) for i, block in enumerate(blocks)]


def _blocks(model: Any) -> tuple[str, Any]:
    """The list of transformer blocks and its name: the first module list whose length is the number of layers."""
    import torch

    depth = getattr(model.config, "num_hidden_layers", None) or model.config.get_text_config().num_hidden_layers
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == depth:
            return name, module
    return "", []
