"""A bundle for another machine: one zip file, with no past message in it.

Elsewhere it answers as here, given the same open model. It cannot repeat its proof there, for that takes the messages it was
proved on: on another kind of machine it is an apprentice, and `explain` shows no past messages. What it has learnt from is
still in its weights and its vocabulary, in pieces of up to four characters.
"""
from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from machikoba import files
from machikoba.pack.bundle import EXAMPLES, SUFFIX, UNSEEN, open_bundle, seal, write_file

PROOF = "proof.json"
BLOCK = 1 << 20
EPOCH = (1980, 1, 1, 0, 0, 0)  # of every file, so that a bundle exported twice gives the same bytes


def export(path: Path, target: Path, name: str | None = None) -> dict[str, Any]:
    """Writes the bundle at `path` as a zip file; name: of the folder in it. Raises BundleError, StorageError."""
    bundle = open_bundle(path)
    folder = (name or path.name.removesuffix(SUFFIX)) + SUFFIX
    with files.scratch_folder(target.parent / "export") as scratch, files.storing(target):
        sealed = scratch / folder
        for file in sorted(file for file in path.rglob("*") if file.is_file() and file.name not in (EXAMPLES, UNSEEN)):
            write_file(sealed, file.relative_to(path).as_posix(), file.read_bytes())
        write_file(sealed, PROOF, _nameless(bundle.proof(), folder))
        seal(sealed)
        draft = scratch / target.name
        with zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as out:
            for file in sorted(file for file in sealed.rglob("*") if file.is_file()):
                member = zipfile.ZipInfo(f"{folder}/{file.relative_to(sealed).as_posix()}", EPOCH)
                member.compress_type = zipfile.ZIP_DEFLATED
                with file.open("rb") as source, out.open(member, "w", force_zip64=True) as into:
                    while block := source.read(BLOCK):
                        into.write(block)
        files.flush(draft)
        draft.replace(target)
        files.sync_folder(target.parent)
    base = bundle.facts["base"]
    return {"bundle": folder, "file": str(target), "bytes": target.stat().st_size, "base": base and base["name"],
            "status": bundle.proof()["status"]}


def _nameless(proof: dict[str, Any], folder: str) -> dict[str, Any]:
    """The proof, its rows numbered: their ids are hashes of messages, which who guesses a message could recognise."""
    rows = [{**row, "id": str(number)} for number, row in enumerate(proof["certify_rows"], 1)]
    return {**proof, "bundle": folder, "certify_rows": rows}
