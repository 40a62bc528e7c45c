"""The output layer and training on completions, against Transformers' own causal language models."""
from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy

from machikoba.adapt.sft import Writer
from machikoba.adapt.training_recipe import Recipe
from machikoba.base import output
from machikoba.base.load import find_base
from machikoba.base.speed import Speed
from machikoba.errors import BaseError
from tests.base.test_architectures import DECODERS, make
from tests.conftest import messages

PLAIN = Speed("float32", 1, "test", 1.0)
PAIRS = [(f"問い合わせ: {text}\n分類:", " " + label) for text, label in messages(24)]


@pytest.fixture(params=DECODERS)
def writer(request, tmp_path, monkeypatch):
    monkeypatch.setattr(output, "CHUNK_ROWS", 70)  # 200 tokens: several chunks, the last one shorter
    monkeypatch.setattr(output, "BLOCK_ROWS", 5)
    return Writer(find_base(str(make(request.param, tmp_path / "base")), tmp_path), PLAIN)


def theirs(folder, pairs, grad=False):
    """Loss summed over completions by Transformers' own model with its output layer."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()
    total = torch.zeros(())
    for pair in pairs:
        logits = model(input_ids=torch.tensor([pair.tokens])).logits[0, pair.n_prompt - 1:-1]
        total = total + cross_entropy(logits, torch.tensor(pair.tokens[pair.n_prompt:]), reduction="sum")
    return total


def test_the_loss_is_that_of_transformers(writer):
    pairs = writer.read(PAIRS[:6])
    count = sum(len(pair.tokens) - pair.n_prompt for pair in pairs)
    with torch.no_grad():
        wanted = float(theirs(writer.trunk.base.folder, pairs)) / count
    assert writer.loss(pairs) == pytest.approx(wanted, abs=1e-4)


def test_the_gradient_is_that_of_the_formula(writer):
    pairs = writer.read(PAIRS[:4])
    states = torch.randn(7, writer.trunk.base.config()["hidden_size"], requires_grad=True)
    tokens = torch.tensor([pairs[0].tokens[-1], 0, 69, 70, 139, 140, 199])
    weight = writer.output.weight.read().float()
    scores = states @ weight.t() + (0 if writer.output.bias is None else writer.output.bias)
    cap = writer.output.softcap
    wanted = cross_entropy(cap * torch.tanh(scores / cap) if cap else scores, tokens, reduction="sum")
    found = writer.output.loss(states, tokens)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(torch.autograd.grad(3 * found, states)[0], torch.autograd.grad(3 * wanted, states)[0],
                               atol=1e-5, rtol=1e-4)


def test_a_softcap_is_followed(writer):
    writer.output.softcap = 5.0
    test_the_gradient_is_that_of_the_formula(writer)


def test_completions_are_learnt_and_peft_reads_them(writer, tmp_path):
    peft = pytest.importorskip("peft")
    pairs = writer.read(PAIRS)
    before = writer.loss(pairs)
    writer.fit(pairs, Recipe(epochs=12, rate=2e-2, batch_tokens=120))
    after = writer.loss(pairs)
    assert after < before - 0.05
    for name, content in writer.save().items():
        (tmp_path / name).write_bytes(content)
    model = transformers.AutoModelForCausalLM.from_pretrained(writer.trunk.base.folder)
    model = peft.PeftModel.from_pretrained(model, tmp_path).eval()
    pair = pairs[0]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([pair.tokens])).logits[0, pair.n_prompt - 1:-1]
        wanted = cross_entropy(logits, torch.tensor(pair.tokens[pair.n_prompt:]))
    assert writer.loss([pair]) == pytest.approx(float(wanted), abs=1e-4)


def test_an_encoder_cannot_write(tiny_encoder, tmp_path):
    with pytest.raises(BaseError) as caught:
        Writer(find_base(str(tiny_encoder), tmp_path), PLAIN)
    assert caught.value.code == "base_no_output"


def test_what_is_too_long_keeps_its_completion(writer):
    trunk = writer.trunk
    trunk._longest = 12
    tokens, n_prompt = trunk.pair_tokens(PAIRS[0][0] * 20, "予約")
    assert len(tokens) == 12
    assert tokens[n_prompt:] == trunk.pair_tokens("", "予約")[0][-(12 - n_prompt):]
    tokens, n_prompt = trunk.pair_tokens("予約", PAIRS[0][0] * 20)
    assert (len(tokens), n_prompt) == (12, 1)
    assert np.all(np.array(tokens) < 200)
