"""Updates against PEFT, attention and the fast small steps against plain ones."""
from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, gelu, silu

from machikoba.base import attention, fast, lora
from machikoba.base.attention import _Attention
from machikoba.base.load import find_base
from machikoba.base.trunk import Trunk
from tests.base.test_architectures import FLAT, PLAIN

SHAPE = lora.Shape(4, 8.0)
STEPS = 20


def numbers(*shape, seed=0, **options):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, **options)


@pytest.mark.parametrize(("heads", "shared"), [(4, 4), (4, 1), (4, 2)])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kept", [0, 64])
def test_attention_gives_the_gradients_of_its_formula(heads, shared, masked, kept, monkeypatch):
    monkeypatch.setattr(attention, "LONGEST_KEPT", kept)
    q, k, v = (numbers(2, h, 5, 8, seed=i).requires_grad_() for i, h in enumerate((heads, shared, shared)))
    mask = (numbers(2, 1, 5, 5, seed=9) > 0) | torch.eye(5, dtype=torch.bool) if masked else None
    wide = [x.repeat_interleave(heads // shared, dim=1) for x in (k, v)]
    scores = q @ wide[0].transpose(2, 3) * 0.3
    plain = (scores if mask is None else scores.masked_fill(~mask, float("-inf"))).softmax(-1) @ wide[1]
    out = numbers(*plain.shape, seed=7)
    wanted = torch.autograd.grad(plain, (q, k, v), out)
    found = _Attention.apply(q, k, v, mask, 0.3)
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-4)
    for got, want in zip(torch.autograd.grad(found, (q, k, v), out), wanted, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("bias", [False, True])
def test_an_update_gives_the_gradients_of_its_formula(bias):
    linears = [torch.nn.Linear(6, size, bias=bias) for size in (5, 3)]
    group = lora.Group(linears, SHAPE, torch.Generator().manual_seed(0))
    group.b.data.normal_()
    x = torch.randn(2, 3, 6, requires_grad=True)
    parts = [group.part(i) for i in range(2)]
    plain = torch.cat([linear(x) + SHAPE.scaling * (x @ a.t()) @ b.t()
                       for linear, (_w, _bias, a, b) in zip(linears, parts, strict=True)], dim=-1)
    out = torch.randn_like(plain)
    wanted = torch.autograd.grad(plain, (x, group.a, group.b), out)
    for apart in (False, True):
        group.apart = apart
        found = torch.cat([group(x, 0), group(x, 1)], dim=-1)
        torch.testing.assert_close(found, plain)
        for got, want in zip(torch.autograd.grad(found, (x, group.a, group.b), out), wanted, strict=True):
            torch.testing.assert_close(got, want)
    group.apart = False
    torch.testing.assert_close(group(x, 0), plain[..., :5])
    torch.testing.assert_close(group(2 * x, 0), 2 * plain[..., :5] - (0 if not bias else linears[0].bias), atol=1e-4, rtol=1e-4)
    assert group.apart, "another input while a part of the first still waits: the layers do not read the same"


@pytest.mark.parametrize("kind", ["silu", "gelu", "gelu_tanh"])
def test_gate_and_norm_give_the_gradients_of_their_formulas(kind):
    g, u, scale = numbers(3, 4).requires_grad_(), numbers(3, 4, seed=1).requires_grad_(), torch.rand(4) + 0.5
    activate = {"silu": silu, "gelu": gelu, "gelu_tanh": partial(gelu, approximate="tanh")}[kind]
    out = numbers(3, 4, seed=2)
    wanted = torch.autograd.grad(activate(g) * u, (g, u), out)
    for got, want in zip(torch.autograd.grad(fast._Gate.apply(g, u, kind), (g, u), out), wanted, strict=True):
        torch.testing.assert_close(got, want)
    g, out = g.detach().float().requires_grad_(), out.float()
    wanted = torch.autograd.grad(g / (g.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * scale, g, out)
    found = torch.autograd.grad(fast._Norm.apply(g, scale, 1e-6), g, out)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_norm_of_another_kind_is_left_alone():
    class OddRMSNorm(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.eps = torch.nn.Parameter(torch.ones(8)), 1e-6

        def forward(self, x):
            return 3 * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight

    model = torch.nn.Sequential(OddRMSNorm())
    assert fast.hasten(model, exact=True) == ["0"]
    x = torch.randn(2, 8)
    torch.testing.assert_close(model(x), OddRMSNorm()(x))


@pytest.fixture(params=["tiny_encoder", "tiny_decoder"])
def pair(request, tmp_path):
    """A trunk with updates, and the same model under PEFT with the same starting updates."""
    peft = pytest.importorskip("peft")
    import transformers

    base = find_base(str(request.getfixturevalue(request.param)), tmp_path)
    trunk = Trunk(base, ("last",), PLAIN)
    updates = lora.LoraUpdates(trunk.model, lora.linears_of(trunk.blocks()), SHAPE, seed=3)
    for name, content in updates.save(base.name).items():
        (tmp_path / name).write_bytes(content)
    model = transformers.AutoModel.from_pretrained(base.folder).eval()
    return trunk, updates, peft.PeftModel.from_pretrained(model, tmp_path, is_trainable=True), tmp_path


def test_peft_gives_the_same_features(pair):
    """Largest difference allowed: 1e-5, of features of size about 1."""
    peft = pytest.importorskip("peft")
    import transformers

    trunk, updates, _model, folder = pair
    for number, group in enumerate(updates.groups):
        group.b.data.normal_(generator=torch.Generator().manual_seed(number), std=0.1)
    for name, content in updates.save("tiny").items():
        (folder / name).write_bytes(content)
    model = peft.PeftModel.from_pretrained(transformers.AutoModel.from_pretrained(trunk.base.folder), folder).eval()
    ids = torch.tensor([trunk.tokens(["朝食の献立"])[0]])
    with torch.no_grad():
        theirs = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        ours = trunk.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    assert float((ours - theirs).abs().max()) < 1e-5


def test_the_loss_curve_is_that_of_plain_pytorch_with_peft(pair):
    """Same batches, float32, 20 steps: every loss within 1e-4."""
    trunk, updates, model, _folder = pair
    words = ["駐車場 無料", "朝食 献立", "風呂 湯", "客室 予約"]
    encoded = trunk.tokens(words)
    labels = torch.arange(len(words))
    head = torch.randn(len(words), 32, generator=torch.Generator().manual_seed(5))
    ours, theirs = [], []
    own = torch.optim.AdamW(updates.parameters(), lr=5e-3, weight_decay=0.0)
    other = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-3, weight_decay=0.0)
    for number in range(STEPS):
        rows = [number % 4, (number + 1) % 4]
        loss = cross_entropy(trunk.forward([encoded[i] for i in rows], FLAT.of)[:, 0] @ head.t(), labels[rows])
        ours.append(loss.item())
        own.zero_grad()
        loss.backward()
        own.step()
        width = max(len(encoded[i]) for i in rows)
        ids = torch.tensor([encoded[i] + [0] * (width - len(encoded[i])) for i in rows])
        mask = torch.tensor([[1] * len(encoded[i]) + [0] * (width - len(encoded[i])) for i in rows])
        states = model(input_ids=ids, attention_mask=mask).last_hidden_state
        counted = mask.float()
        if trunk.base.kind == "decoder":
            counted[:, 0] = 0
        pooled = (states * counted[..., None]).sum(1) / counted.sum(1, keepdim=True)
        loss = cross_entropy(pooled @ head.t(), labels[rows])
        theirs.append(loss.item())
        other.zero_grad()
        loss.backward()
        other.step()
    assert ours[-1] < ours[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
