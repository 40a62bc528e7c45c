from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import machikoba
from machikoba.errors import BundleError, MachikobaError
from machikoba.pack.bundle import open_bundle


def test_damage_is_told_apart(made, tmp_path):
    def copy(name):
        shutil.copytree(made.path, tmp_path / name)
        return tmp_path / name

    def code(path):
        with pytest.raises(BundleError) as caught:
            open_bundle(path)
        return caught.value.code

    for i, name in enumerate(["weights/machine.safetensors", "examples.jsonl", "proof.json", "card.md"]):
        flipped = copy(f"flipped{i}")
        content = bytearray((flipped / name).read_bytes())
        content[len(content) // 2] ^= 1
        (flipped / name).write_bytes(content)
        assert code(flipped) == "bundle_damaged"
    lacking = copy("lacking")
    (lacking / "weights/vocabulary.json").unlink()
    assert code(lacking) == "bundle_incomplete"
    newer = copy("newer")
    facts = json.loads((newer / "bundle.json").read_text(encoding="utf-8"))
    (newer / "bundle.json").write_text(json.dumps(facts | {"format": 99}))
    assert code(newer) == "bundle_newer"
    assert code(tmp_path) == "bundle_missing"


def test_a_wrong_base_is_noticed(inquiries, tmp_path, tiny_encoder):
    base = tmp_path / "base"
    shutil.copytree(tiny_encoder, base)
    result = machikoba.tune(inquiries, tmp_path / "a.bundle", rungs=("features",), bases=(str(base),))
    weights = bytearray((base / "model.safetensors").read_bytes())
    weights[-8] ^= 1
    (base / "model.safetensors").write_bytes(weights)
    with pytest.raises(BundleError) as caught:
        machikoba.load(result.path)
    assert caught.value.code == "bundle_wrong_base"
    shutil.rmtree(base)
    with pytest.raises(MachikobaError) as gone:
        machikoba.load(result.path)
    assert gone.value.code == "base_not_here"


@given(st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_flipped_bit_anywhere_is_noticed(made, data):
    files = sorted(path.relative_to(made.path) for path in made.path.rglob("*") if path.is_file())
    name = data.draw(st.sampled_from(files))
    content = bytearray((made.path / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(made.path, Path(folder) / "a.bundle")
        (Path(folder) / "a.bundle" / name).write_bytes(content)
        with pytest.raises(BundleError):
            open_bundle(Path(folder) / "a.bundle")


@pytest.mark.parametrize("ending", ["\x0b", "\x0c", "\r", "\u2028", ""])
def test_a_manifest_whose_lines_end_otherwise_is_noticed(made, tmp_path, ending):
    shutil.copytree(made.path, tmp_path / "a.bundle")
    manifest = tmp_path / "a.bundle" / "MANIFEST.sha256"
    whole = manifest.read_bytes().decode()
    for where in (whole.index("\n"), len(whole) - 1):
        manifest.write_bytes((whole[:where] + ending + whole[where + 1:]).encode())
        with pytest.raises(BundleError):
            open_bundle(tmp_path / "a.bundle")


def test_no_pickle_in_a_bundle(made):
    assert {path.suffix for path in made.path.rglob("*") if path.is_file()} == {
        ".json", ".jsonl", ".toml", ".md", ".safetensors", ".sha256", ""}
