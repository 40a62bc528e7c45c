"""The form for reading: the same numbers as Transformers gives, in fewer steps."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers

from machikoba.base import fast, product
from machikoba.base.load import find_base
from machikoba.base.shared import Adapter
from machikoba.base.speed import Speed
from machikoba.base.trunk import Trunk
from tests.base.test_architectures import FLAT, GROUPED, PLAIN, SHAPES, TEXTS, make, theirs
from tests.conftest import save_tokenizer

WRITTEN_OUT = {"Gemma3ForCausalLM", "Qwen3ForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "BertModel", "RobertaModel",
               "XLMRobertaModel"}
ROUNDED = Speed("bfloat16", 1, "test", 1.0)


def form(trunk):
    """What computes the first block."""
    block = trunk.blocks()[0][1]
    return type(getattr(block.forward, "__self__", block)).__name__


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_read_is_what_transformers_gives_alone_and_together(name, tmp_path):
    base = find_base(str(make(name, tmp_path / name)), tmp_path)
    trunk, expected = Trunk(base, ("last",), PLAIN, reading=True), theirs(base, TEXTS)
    np.testing.assert_allclose(trunk.pool(TEXTS, FLAT)[:, 0], expected, atol=2e-5)
    alone = np.concatenate([trunk.pool([text], FLAT) for text in TEXTS])
    np.testing.assert_allclose(alone[:, 0], expected, atol=2e-5)
    again = np.concatenate([trunk.pool([text], FLAT) for text in TEXTS])  # each length has been met
    np.testing.assert_array_equal(again, alone)
    assert (form(trunk) in ("_After", "_Before")) == (name in WRITTEN_OUT)


@pytest.mark.parametrize("name", SHAPES)
def test_every_layer_and_both_ways_are_read_as_they_are_for_training(name, tmp_path):
    base = find_base(str(make(name, tmp_path / name)), tmp_path)
    both_ways = base.kind == "decoder"
    layers = ("1", "last")
    slow, quick = (Trunk(base, layers, PLAIN, both_ways, reading) for reading in (False, True))
    expected = slow.pool(TEXTS, FLAT)
    np.testing.assert_allclose(quick.pool(TEXTS, FLAT), expected, atol=2e-5)
    np.testing.assert_allclose(np.concatenate([quick.pool([text], FLAT) for text in TEXTS]), expected, atol=2e-5)
    assert quick.linears == {name for name, module in slow.model.named_modules() if type(module) is torch.nn.Linear
                             and name.startswith(slow.blocks()[0][0].rpartition(".")[0])}


@pytest.mark.parametrize("name", sorted(WRITTEN_OUT))
def test_rounding_is_that_of_the_number_format(name, tmp_path):
    base = find_base(str(make(name, tmp_path / name)), tmp_path)
    expected, found = theirs(base, TEXTS), Trunk(base, ("last",), ROUNDED, reading=True).pool(TEXTS, FLAT)[:, 0]
    assert np.linalg.norm(found - expected, axis=1).max() < 0.02 * np.linalg.norm(expected, axis=1).min()


@pytest.mark.parametrize(("kind", "settings"), [
    ("Gemma2", {**GROUPED, "head_dim": 8, "attn_logit_softcapping": 50.0}),
    ("Granite", {**GROUPED, "residual_multiplier": 0.9}),
    ("Olmo2", GROUPED),
    ("Cohere", {**GROUPED, "use_qk_norm": False}),
])
def test_a_block_that_only_looks_alike_stays_as_it_was_made(kind, settings, tmp_path):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**settings)
    getattr(transformers, f"{kind}ForCausalLM")(config).eval().save_pretrained(tmp_path / kind)
    save_tokenizer(tmp_path / kind)
    base = find_base(str(tmp_path / kind), tmp_path)
    trunk = Trunk(base, ("last",), PLAIN, reading=True)
    np.testing.assert_allclose(trunk.pool(TEXTS, FLAT)[:, 0], theirs(base, TEXTS), atol=2e-5)
    assert form(trunk) not in ("_After", "_Before")


def test_a_setting_that_may_not_show_is_heeded_wherever_it_stands(tmp_path):
    base = find_base(str(make("LlamaForCausalLM", tmp_path / "llama")), tmp_path)
    settings = base.folder / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"clip_qkv": 8.0}))
    assert form(Trunk(find_base(str(base.folder), tmp_path), ("last",), PLAIN, reading=True)) not in ("_After", "_Before")


def test_a_model_whose_blocks_see_the_words_is_not_read_directly(tmp_path):
    from machikoba.base.direct import Direct

    base = find_base(str(make("LlamaForCausalLM", tmp_path / "llama")), tmp_path)
    trunk = Trunk(base, ("last",), PLAIN, reading=True)
    blocks = [block for _name, block in trunk.blocks()]

    class Seeing(torch.nn.Module):
        """Hands each block the words besides the states."""

        def __init__(self, inner):
            super().__init__()
            self.inner, self.norm, self.config = inner, inner.norm, inner.config

        def get_input_embeddings(self):
            return self.inner.get_input_embeddings()

        def forward(self, input_ids, **options):
            return self.inner(input_ids=input_ids, words=input_ids, **options)

    assert Direct.of(trunk.model, blocks, {"use_cache": False}) is not None
    assert Direct.of(Seeing(trunk.model), blocks, {"use_cache": False}) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["gelu", "gelu_tanh", "silu"])
def test_a_product_gives_the_layers_side_by_side_with_each_rows_updates(dtype, kind):
    generator = torch.Generator().manual_seed(0)
    linears = {name: torch.nn.Linear(24, size, dtype=dtype).requires_grad_(False) for name, size in (("a", 16), ("b", 40))}
    rows = product.Rows()
    together = product.Product(linears, rows)
    x = torch.randn(3, 5, 24, generator=generator).to(dtype)
    plain = torch.cat([linear(x) for linear in linears.values()], -1)
    close = {"rtol": 0.02, "atol": 0.02} if dtype is torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(together(x), plain, **close)
    torch.testing.assert_close(together.activated(x, kind), fast.activate(plain, kind), **close)
    low, high = torch.randn(4, 24, generator=generator).to(dtype), torch.randn(40, 4, generator=generator).to(dtype)
    rows.set([None, Adapter({"b": (low, high)}, 0.5, 0), None])
    expected = plain.clone()
    expected[1, :, 16:] += 0.5 * (x[1] @ low.t() @ high.t())
    wide = {"rtol": 0.05, "atol": 0.15} if dtype is torch.bfloat16 else close
    torch.testing.assert_close(together(x), expected, **wide)
    torch.testing.assert_close(together.activated(x, kind), fast.activate(expected, kind), **wide)
    with pytest.raises(product.NotByRow):
        together(x[0])
