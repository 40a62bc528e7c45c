from __future__ import annotations

import errno
import json
import shutil
import sys
import tempfile
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from machikoba.base import gguf
from machikoba.base.catalog import catalog, default_base
from machikoba.base.charsmap import precompiled
from machikoba.base.encoder import Encoder
from machikoba.base.load import find_base
from machikoba.base.speed import Speed, measured_speed
from machikoba.base.tokens import TokenWeights
from machikoba.base.trunk import Trunk, batches
from machikoba.errors import BaseError, MachikobaError

PLAIN = Speed("float32", 1, "test", 1.0)
FLAT = TokenWeights(np.zeros(0, np.int64), np.zeros(0, np.float32), 1.0)


def test_catalogue_is_whole():
    entries = catalog()
    assert list(entries)[:4] == ["multilingual-e5-small", "gemma-3-270m", "all-minilm-l6-v2", "smollm2-135m-instruct"]
    assert default_base("classify").licence == "MIT"
    assert len([e for e in entries.values() if e.hub]) >= 12
    for entry in entries.values():
        assert bool(entry.files) != bool(entry.hub)
        assert len(entry.sha256) == (64 if entry.files else 0)
        assert entry.licence_url.startswith("https://")
    assert "Prohibited Use" in entries["gemma-3-270m"].notice


# Besides marks, what joins the character before it: half-width voicing marks, and the skin tones of emoji. `tokenizers` looks up
# both as one.
JOINING = {"\uff9e", "\uff9f", *map(chr, range(0x1f3fb, 0x1f400))}


@given(st.dictionaries(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), st.text("abcあいう ", max_size=3),
                       min_size=1, max_size=40), st.text(max_size=20))
def test_characters_map_replaces_each_character(replacements, text):
    from tokenizers import normalizers

    text = "".join(c for c in text + "".join(replacements)
                   if unicodedata.category(c)[0] in "LNPSZ" and c != "\0" and c not in JOINING)
    done = normalizers.Precompiled(precompiled(replacements)).normalize_str(" ".join(text))
    assert done == "".join(replacements.get(c, c) for c in " ".join(text))


def test_folder_tells_its_kind_and_layers(tiny_encoder, tiny_decoder, tmp_path):
    encoder, decoder = find_base(str(tiny_encoder), tmp_path), find_base(str(tiny_decoder), tmp_path)
    assert (encoder.kind, encoder.layers) == ("encoder", ("last",))
    assert (decoder.kind, decoder.layers) == ("decoder", ("1", "2", "3", "last"))
    assert encoder.sha256 != decoder.sha256


def test_pooling_agrees_with_transformers(tiny_encoder, tmp_path):
    import torch
    from transformers import AutoModel, AutoTokenizer

    base = find_base(str(tiny_encoder), tmp_path)
    texts = ["駐車場", "朝食の献立を教えて", "風呂", ""]
    pooled = Trunk(base, ("last",), PLAIN).pool(texts, FLAT)
    model, tokenizer = AutoModel.from_pretrained(tiny_encoder).eval(), AutoTokenizer.from_pretrained(tiny_encoder)
    for text, found in zip(texts, pooled, strict=True):
        with torch.no_grad():
            expected = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(found[0], expected.numpy(), atol=1e-5)


def test_frequent_tokens_count_less_and_special_ones_as_the_average(tiny_encoder, tmp_path):
    import torch
    from transformers import AutoModel, AutoTokenizer

    trunk = Trunk(find_base(str(tiny_encoder), tmp_path), ("last",), PLAIN)
    model, tokenizer = AutoModel.from_pretrained(tiny_encoder).eval(), AutoTokenizer.from_pretrained(tiny_encoder)
    weights = trunk.learn_weights(["車風", "車湯", "車"])
    ids = tokenizer("車風")["input_ids"]
    common, rare = np.log(4 / 4) + 1e-3, np.log(4 / 2) + 1e-3
    shares = np.array([(common + rare) / 2, common, rare, (common + rare) / 2])
    with torch.no_grad():
        states = model(torch.tensor([ids])).last_hidden_state[0].numpy()
    expected = (shares[:, None] * states).sum(0) / shares.sum()
    np.testing.assert_allclose(trunk.pool(["車風"], weights)[0, 0], expected, atol=1e-5)


@given(st.lists(st.lists(st.integers(0, 50), max_size=8), max_size=20))
def test_token_weights_fall_with_frequency_and_survive_saving(messages):
    weights = TokenWeights.learn(messages)
    table = weights.of(np.arange(60))
    counts = np.array([sum(i in message for message in messages) for i in range(60)])
    assert (table > 0).all()
    assert (np.diff(table[np.argsort(counts, kind="stable")]) <= 0).all()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokens.safetensors").write_bytes(weights.save())
        assert (TokenWeights.load(Path(folder) / "tokens.safetensors").of(np.arange(60)) == table).all()


def test_layers_of_a_decoder_leave_out_the_first_token_and_stop_early(tiny_decoder, tmp_path):
    import torch
    from transformers import AutoModel, AutoTokenizer

    base = find_base(str(tiny_decoder), tmp_path)
    trunk = Trunk(base, ("2",), PLAIN)
    ran = []
    trunk.blocks(3)[0][1].register_forward_hook(lambda *_: ran.append(3))
    pooled = trunk.pool(["駐車場と風呂"], FLAT)
    assert not ran
    model, tokenizer = AutoModel.from_pretrained(tiny_decoder).eval(), AutoTokenizer.from_pretrained(tiny_decoder)
    with torch.no_grad():
        states = model(**tokenizer("駐車場と風呂", return_tensors="pt"), output_hidden_states=True).hidden_states
    np.testing.assert_allclose(pooled[0, 0], states[2][0, 1:].mean(0).numpy(), atol=1e-5)


def test_batch_mates_hardly_matter(tiny_encoder, tmp_path):
    trunk = Trunk(find_base(str(tiny_encoder), tmp_path), ("last",), PLAIN)
    texts = ["駐車場" * i for i in range(1, 12)]
    alone = np.concatenate([trunk.pool([text], FLAT) for text in texts])
    np.testing.assert_allclose(trunk.pool(texts, FLAT), alone, atol=1e-5)


@given(st.lists(st.integers(1, 600), max_size=60), st.integers(1, 2_000))
def test_batches_take_every_row_once_within_the_budget(lengths, budget):
    made = list(batches(lengths, budget))
    assert sorted(i for rows in made for i in rows.tolist()) == list(range(len(lengths)))
    for rows in made:
        assert len(rows) == 1 or len(rows) * max(lengths[i] for i in rows) <= budget


def test_encoder_reads_no_text_twice(tiny_encoder, tmp_path):
    encoder = Encoder(find_base(str(tiny_encoder), tmp_path), lambda home: PLAIN, tmp_path)
    first = encoder.layers(["駐車場", "風呂"])["last"]
    encoder._trunk = None
    np.testing.assert_array_equal(encoder.layers(["風呂", "駐車場"])["last"], first[::-1])
    assert encoder._trunk is None


def test_speed_is_measured_once(tmp_path):
    first = measured_speed(tmp_path)
    assert first.dtype in ("float32", "bfloat16")
    assert measured_speed(tmp_path) == first
    assert len(json.loads((tmp_path / "cache" / "speed.json").read_text())) == 1


def base_error(name, home, code):
    with pytest.raises(BaseError) as caught:
        find_base(str(name), home)
    assert caught.value.code == code
    return caught.value


def test_a_base_that_is_not_here_says_which_are(tmp_path):
    assert "here are" in base_error("no-such-model", tmp_path, "base_not_here").found
    assert "internet" in base_error("ruri-v3-30m", tmp_path, "base_not_here").next
    base_error("someone/some-model", tmp_path, "base_not_here")


def test_a_hub_id_is_taken_from_the_local_cache(tiny_encoder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for hub in ("someone/some-model", "cl-nagoya/ruri-v3-30m"):
        folder = tmp_path / "hub" / f"models--{hub.replace('/', '--')}"
        shutil.copytree(tiny_encoder, folder / "snapshots" / "0123")
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0123")
    assert find_base("someone/some-model", tmp_path).name == "someone/some-model"
    assert find_base("ruri-v3-30m", tmp_path).licence == "Apache-2.0"
    base_error("someone/another", tmp_path, "base_not_here")


def test_unreadable_folders(tiny_encoder, tmp_path):
    (tmp_path / "empty").mkdir()
    base_error(tmp_path / "empty", tmp_path, "base_unreadable")
    broken = tmp_path / "broken"
    shutil.copytree(tiny_encoder, broken)
    (broken / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(BaseError) as caught:
        Trunk(find_base(str(broken), tmp_path), ("last",), PLAIN).pool(["風呂"], FLAT)
    assert caught.value.code == "base_unreadable"
    (tmp_path / "broken.gguf").write_bytes(b"GGUF but no more")
    base_error(tmp_path / "broken.gguf", tmp_path, "base_unreadable")
    assert not list((tmp_path / "bases").glob("*"))


@pytest.mark.parametrize(("refusal", "code"), [
    (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
    (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), "disk_full"),
    (PermissionError(errno.EACCES, "Permission denied"), "disk_refused"),
    (ValueError("not a model"), "base_unreadable"),
    (OSError("a library's own words"), "base_unreadable"),
])
def test_unpacking_that_fails_says_why_and_leaves_nothing(refusal, code, tmp_path, monkeypatch):
    def refuse(sources, folder):
        (folder / "config.json").write_text("{}")
        raise refusal

    monkeypatch.setattr(gguf, "convert", refuse)
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(MachikobaError) as caught:
        find_base(str(tmp_path / "a.gguf"), tmp_path)
    assert caught.value.code == code
    assert not list((tmp_path / "bases").glob("*"))


@pytest.mark.parametrize("package", ["gguf", "accelerate"])
def test_a_gguf_file_without_its_packages(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(BaseError) as caught:
        find_base(str(tmp_path / "a.gguf"), tmp_path)
    assert caught.value.code == "gguf_missing"
    assert "pip install" in caught.value.next
