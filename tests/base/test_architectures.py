"""Every common architecture as a tiny random model: features, both ways, updates, save and reload."""
from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers

from machikoba.base import lora
from machikoba.base.adapter import PEFT_FACTS, PEFT_WEIGHTS
from machikoba.base.load import find_base
from machikoba.base.shared import Reading, SharedTrunk
from machikoba.base.speed import Speed
from machikoba.base.states import States
from machikoba.base.tokens import TokenWeights
from machikoba.base.trunk import Trunk
from machikoba.errors import BaseError, BundleError
from tests.conftest import save_tokenizer

PLAIN = Speed("float32", 1, "test", 1.0)
FLAT = TokenWeights(np.zeros(0, np.int64), np.zeros(0, np.float32), 1.0)
TEXTS = ["駐車場", "朝食の献立を教えて", "風呂", "", "駐車場 無料 送迎"]
SMALL = {"vocab_size": 200, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
         "max_position_embeddings": 64, "pad_token_id": 0}
GROUPED = {**SMALL, "num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
SHAPES = {
    "Gemma3ForCausalLM": ("Gemma3TextConfig", {**GROUPED, "head_dim": 8, "sliding_window": 16,
                                               "layer_types": ["sliding_attention", "full_attention"]}),
    "Qwen3ForCausalLM": ("Qwen3Config", {**GROUPED, "head_dim": 8}),
    "LlamaForCausalLM": ("LlamaConfig", GROUPED),
    "MistralForCausalLM": ("MistralConfig", {**GROUPED, "sliding_window": 16}),
    "PhiForCausalLM": ("PhiConfig", GROUPED),
    "Phi3ForCausalLM": ("Phi3Config", GROUPED),
    "Lfm2ForCausalLM": ("Lfm2Config", {**GROUPED, "block_ff_dim": 48, "block_multiple_of": 8,
                                       "layer_types": ["conv", "full_attention"]}),
    "BertModel": ("BertConfig", SMALL),
    "RobertaModel": ("RobertaConfig", SMALL),
    "XLMRobertaModel": ("XLMRobertaConfig", {**SMALL, "pad_token_id": 1}),
    "DebertaV2Model": ("DebertaV2Config", {**SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
    "ModernBertModel": ("ModernBertConfig", {**SMALL, "local_attention": 8, "global_attn_every_n_layers": 2}),
}
DECODERS = [name for name in SHAPES if name.endswith("CausalLM")]


def make(name, folder):
    """Saves a random model of one architecture with a tokenizer."""
    config, settings = SHAPES[name]
    torch.manual_seed(0)
    getattr(transformers, name)(getattr(transformers, config)(**settings)).eval().save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(params=SHAPES)
def tiny(request, tmp_path):
    """A base of each architecture."""
    return find_base(str(make(request.param, tmp_path / request.param)), tmp_path)


def theirs(base, texts):
    """Mean states of each text alone, by Transformers."""
    model = transformers.AutoModel.from_pretrained(base.folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base.folder)
    skipped = 1 if base.kind == "decoder" else 0
    with torch.no_grad():
        states = [model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).last_hidden_state[0]
                  for text in texts]
    return np.stack([(s[skipped:] if len(s) > skipped else s).mean(0).numpy() for s in states])


def test_features_are_those_of_transformers(tiny):
    trunk = Trunk(tiny, ("last",), PLAIN)
    np.testing.assert_allclose(trunk.pool(TEXTS, FLAT)[:, 0], theirs(tiny, TEXTS), atol=2e-5)
    assert trunk.left_slow == []


def test_a_text_longer_than_the_base_allows_is_cut(tiny):
    trunk = Trunk(tiny, ("last",), PLAIN)
    long, cut = "駐車場" * 200, trunk.tokens(["駐車場" * 200])[0]
    assert 60 < len(cut) <= 64
    assert np.isfinite(trunk.pool([long, "風呂", "駐" * 61], FLAT)).all()


def test_both_ways_lets_the_first_tokens_see_the_last(tiny):
    if tiny.kind != "decoder":
        pytest.skip("an encoder sees both ways as it is")

    def first_state(text, both_ways):
        trunk, seen = Trunk(tiny, ("last",), PLAIN, both_ways), []
        trunk.model.register_forward_hook(lambda _m, _i, output: seen.append(output.last_hidden_state[0, 0].clone()))
        trunk.pool([text], FLAT)
        return seen[0]

    assert torch.equal(first_state("駐車場", False), first_state("駐車湯", False))
    assert not torch.allclose(first_state("駐車場", True), first_state("駐車湯", True), atol=1e-5)
    both = Trunk(tiny, ("last",), PLAIN, both_ways=True)
    alone = np.concatenate([both.pool([text], FLAT) for text in TEXTS])
    np.testing.assert_allclose(both.pool(TEXTS, FLAT), alone, atol=2e-5)


def test_updates_start_at_nothing_learn_and_survive_saving(tiny, tmp_path):
    trunk = Trunk(tiny, ("last",), PLAIN, both_ways=tiny.kind == "decoder")
    before = trunk.pool(TEXTS, FLAT)
    updates = lora.LoraUpdates(trunk.model, lora.linears_of(trunk.blocks()), lora.Shape(4, 8.0))
    assert len(updates.layers) >= 8
    np.testing.assert_allclose(trunk.pool(TEXTS, FLAT), before, atol=1e-6)
    trunk.forward(trunk.tokens(TEXTS), FLAT.of).pow(2).sum().backward()
    for group in updates.groups:
        assert group.weight.grad is None
        assert group.b.grad is not None
        group.b.data.add_(group.b.grad, alpha=-0.1 / (1e-9 + float(group.b.grad.norm())))
    after = trunk.pool(TEXTS, FLAT)
    assert np.abs(after - before).max() > 1e-3
    for name, content in updates.save(tiny.name).items():
        (tmp_path / name).write_bytes(content)
    again = SharedTrunk(tiny, PLAIN, tiny.kind == "decoder")
    reading = Reading("last", FLAT, again.adapter(tmp_path))
    np.testing.assert_allclose(np.stack(again.pool(TEXTS, [reading] * len(TEXTS))), after[:, 0], atol=1e-5)
    updates.remove()
    np.testing.assert_array_equal(trunk.pool(TEXTS, FLAT), before)
    assert (tmp_path / PEFT_FACTS).exists()
    assert (tmp_path / PEFT_WEIGHTS).exists()


def test_texts_of_several_bundles_go_together(tiny, tmp_path):
    both_ways = tiny.kind == "decoder"
    for number in (1, 2):
        trunk = Trunk(tiny, ("last",), PLAIN, both_ways)
        linears = lora.linears_of(trunk.blocks())
        if number == 2:  # updates need not be of every layer
            linears = dict(list(linears.items())[::2])
        updates = lora.LoraUpdates(trunk.model, linears, lora.Shape(4, 8.0), seed=number)
        for group in updates.groups:
            group.b.data.normal_(0, 0.1, generator=torch.Generator().manual_seed(number))
        (tmp_path / str(number)).mkdir()
        for name, content in updates.save(tiny.name).items():
            (tmp_path / str(number) / name).write_bytes(content)
    steep = TokenWeights(np.arange(200), np.linspace(0.1, 3, 200).astype(np.float32), 1.0)
    shared = SharedTrunk(tiny, PLAIN, both_ways)
    adapters = [shared.adapter(tmp_path / str(number)) for number in (1, 2)]
    kinds = [Reading("last", FLAT), Reading("1", steep), Reading("last", FLAT, adapters[0]), Reading("last", steep, adapters[1])]
    texts = [text for text in TEXTS for _kind in kinds]
    together = shared.pool(texts, kinds * len(TEXTS))
    for number, kind in enumerate(kinds):
        alone = SharedTrunk(tiny, PLAIN, both_ways)
        if kind.adapter:
            kind = Reading(kind.layer, kind.weights, alone.adapter(tmp_path / str(number - 1)))
        for place, text in enumerate(TEXTS):
            mixed = together[place * len(kinds) + number]
            np.testing.assert_allclose(mixed, alone.pool([text], [kind])[0], atol=2e-5)
    assert shared.mixes or type(shared.trunk.model).__name__.startswith("DebertaV2")


def test_updates_for_another_model_are_refused(tiny, tmp_path):
    trunk = Trunk(tiny, ("last",), PLAIN)
    updates = lora.LoraUpdates(trunk.model, lora.linears_of(trunk.blocks()), lora.Shape(4, 8.0))
    for name, content in updates.save(tiny.name).items():
        (tmp_path / name).write_bytes(content)
    facts = json.loads((tmp_path / PEFT_FACTS).read_bytes())
    facts["target_modules"].append("no.such.layer")
    (tmp_path / PEFT_FACTS).write_text(json.dumps(facts))
    with pytest.raises(BundleError) as caught:
        SharedTrunk(tiny, PLAIN).adapter(tmp_path)
    assert caught.value.code == "bundle_damaged"


@pytest.mark.parametrize("change", [
    lambda b: b[:-8], lambda b: b + bytes(8), lambda b: b.replace(b'"F32"', b'"F16"'), lambda b: b[:40], lambda b: b"",
    lambda b: b"\xff" * 8 + b[8:]])
def test_updates_that_were_cut_or_altered_are_refused(tiny_encoder, tmp_path, change):
    base = find_base(str(tiny_encoder), tmp_path)
    trunk = Trunk(base, ("last",), PLAIN)
    for name, content in lora.LoraUpdates(trunk.model, lora.linears_of(trunk.blocks()), lora.Shape(4, 8.0)).save("x").items():
        (tmp_path / name).write_bytes(content)
    shared = SharedTrunk(base, PLAIN)
    assert shared.adapter(tmp_path).nbytes == (tmp_path / PEFT_WEIGHTS).stat().st_size - 8 - int.from_bytes(
        (tmp_path / PEFT_WEIGHTS).read_bytes()[:8], "little")
    (tmp_path / PEFT_WEIGHTS).write_bytes(change((tmp_path / PEFT_WEIGHTS).read_bytes()))
    with pytest.raises(BundleError) as caught:
        shared.adapter(tmp_path)
    assert caught.value.code == "bundle_damaged"


def test_layers_that_read_the_same_input_are_computed_together(tiny):
    trunk = Trunk(tiny, ("last",), PLAIN, both_ways=tiny.kind == "decoder")
    updates = lora.LoraUpdates(trunk.model, lora.linears_of(trunk.blocks()), lora.Shape(4, 8.0))
    for number, group in enumerate(updates.groups):
        group.b.data.normal_(generator=torch.Generator().manual_seed(number))
    together = trunk.pool(TEXTS, FLAT)
    assert all(not group._waiting for group in updates.groups)
    for group in updates.groups:
        group.apart = True
    np.testing.assert_allclose(trunk.pool(TEXTS, FLAT), together, atol=1e-4)


def test_upper_blocks_go_on_from_what_was_cached(tiny, tmp_path):
    trunk = Trunk(tiny, ("last",), PLAIN, both_ways=tiny.kind == "decoder")
    before, encoded = trunk.pool(TEXTS, FLAT), trunk.tokens(TEXTS)
    states = States(trunk, 1, tmp_path)
    states.read(encoded)
    trunk.pool_tokens(encoded, FLAT, states.of)  # asks the lowest block once what it gives
    computed = []
    lowest = next(module for module in trunk.blocks()[0][1].modules() if type(module) is torch.nn.Linear)
    lowest.register_forward_hook(lambda *_: computed.append(1))
    np.testing.assert_allclose(trunk.pool_tokens(encoded, FLAT, states.of), before, atol=1e-5)
    assert not computed
    np.testing.assert_allclose(trunk.pool(TEXTS, FLAT), before, atol=1e-6)
    assert computed


def test_weights_that_are_not_numbers_are_refused(tiny, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = load_file(tiny.folder / "model.safetensors")
    name = next(n for n, t in weights.items() if t.dim() == 2 and t.shape[0] != 200)
    weights[name][0, 0] = float("nan")
    save_file(weights, tiny.folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BaseError) as caught:
        Trunk(find_base(str(tiny.folder), tmp_path), ("last",), PLAIN).pool(TEXTS, FLAT)
    assert caught.value.code == "base_not_finite"


def test_a_model_whose_layers_are_of_another_kind_gives_features_and_says_that_it_cannot_be_tuned(tmp_path):
    from machikoba.adapt.training_recipe import Recipe
    from machikoba.adapt.tuning import Tuner

    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=200, n_embd=32, n_layer=2, n_head=4, n_positions=64, pad_token_id=0)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    save_tokenizer(tmp_path / "gpt2")
    base = find_base(str(tmp_path / "gpt2"), tmp_path)
    assert (base.kind, base.max_tokens) == ("decoder", 64)
    assert base.megaflops_per_token > 0
    assert np.isfinite(Trunk(base, ("last",), PLAIN).pool([*TEXTS, "駐車場" * 100], FLAT)).all()
    tuner = Tuner(base, PLAIN, tmp_path)
    tuner.read(TEXTS)
    with pytest.raises(BaseError) as caught:
        tuner.fit(TEXTS, np.array([0, 1, 0, 1, 0]), Recipe(epochs=1), FLAT, 0)
    assert caught.value.code == "base_not_tunable"
