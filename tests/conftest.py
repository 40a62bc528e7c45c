"""What all tests share: no network, English messages, a home of their own, tiny models made on the spot."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", MACHIKOBA_LANG="en", MACHIKOBA_THREADS="1", TOKENIZERS_PARALLELISM="false")

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("default", max_examples=60, deadline=None)
settings.load_profile("default")

ROOT = Path(__file__).resolve().parent.parent
ENDINGS = ["はありますか", "を教えてください", "について知りたいです", "の件です", "はどうですか", "お願いします"]
WORDS = {
    "parking": "車 駐車場 停める 台 無料 大型 バイク 屋根 満車 出し入れ",
    "food": "朝食 夕食 料理 アレルギー 献立 魚 肉 弁当 量 時間",
    "bath": "風呂 露天 貸切 温泉 湯 脱衣所 石けん タオル サウナ 泉質",
    "room": "部屋 布団 ベッド 窓 冷蔵庫 畳 階段 鍵 暖房 机",
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for each test."""
    monkeypatch.setenv("MACHIKOBA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of public data (shared/data beside the project, or MACHIKOBA_DATA)."""
    folder = Path(os.environ.get("MACHIKOBA_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no public data in {folder}; its README says where each set comes from")
    return folder


def messages(n: int, seed: int = 0, noise: float = 0.0) -> list[tuple[str, str]]:
    """n invented messages of four kinds; `noise` is the share whose label is drawn at random."""
    draw = np.random.default_rng(seed)
    names = list(WORDS)
    rows = []
    for i in range(n):
        kind = names[i % len(names)]
        words = draw.choice(WORDS[kind].split(), size=3)
        ending = draw.choice(ENDINGS)
        tail = "".join(chr(0x4E00 + int(c)) for c in draw.integers(0, 20_000, 6))
        text = "".join(words) + str(ending) + tail
        rows.append((text, names[int(draw.integers(4))] if draw.random() < noise else kind))
    return rows


def write_csv(path: Path, rows: list[tuple[str, str]], header: str = "text,label") -> Path:
    path.write_text("\n".join([header, *(f"{text},{label}" for text, label in rows)]) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def inquiries(tmp_path: Path) -> Path:
    """120 easy messages of four kinds."""
    return write_csv(tmp_path / "inquiries.csv", messages(120))


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A bundle of the rung `words` with a certificate, made once."""
    folder = tmp_path_factory.mktemp("made")
    os.environ["MACHIKOBA_HOME"] = str(folder / "home")
    import machikoba

    rows = messages(700) + [(f"営業の電話 {i} 件目 {chr(0x4E00 + 97 * i)}{chr(0x5E00 + 13 * i)}", "other") for i in range(40)]
    path = write_csv(folder / "inquiries.csv", rows)
    return machikoba.tune(path, folder / "a.bundle", none_label="other", never_automatic=("room",), target_coverage=0.5,
                          rungs=("words",))


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    known = sorted({c for words in WORDS.values() for c in words if c != " "})
    characters = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *known]
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(characters)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]",'
        ' "cls_token": "[CLS]", "sep_token": "[SEP]", "model_max_length": 64}')


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of 3 layers and 32 dimensions."""
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("models") / "tiny-encoder"
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=200, hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64,
                         max_position_embeddings=64)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 4 layers and 32 dimensions."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny-decoder"
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=200, hidden_size=32, num_hidden_layers=4, num_attention_heads=2,
                                 num_key_value_heads=1, intermediate_size=64)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder
