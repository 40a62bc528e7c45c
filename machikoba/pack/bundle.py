"""The bundle: one folder with all that is needed to serve a tuned model, check it and make it again.

    bundle.json  recipe.toml  examples.jsonl  unseen.json  proof.json  card.md  NOTICE  weights/  MANIFEST.sha256

Written as a draft, flushed and renamed: it is there whole or not at all, and never changed afterwards.
"""
from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from machikoba import files
from machikoba.errors import BundleError
from machikoba.language import _

FORMAT = 1
MANIFEST = "MANIFEST.sha256"
EXAMPLES = "examples.jsonl"
UNSEEN = "unseen.json"
TOKENS = "tokens.safetensors"  # in weights/: how much each token of the base counts
SUFFIX = ".bundle"
Stamp = tuple[int, ...]  # changes when a bundle is written again


@dataclass(frozen=True)
class Bundle:
    """A bundle on the disk. facts: bundle.json."""

    path: Path
    facts: dict[str, Any]

    @property
    def weights(self) -> Path:
        return self.path / "weights"

    @property
    def fingerprint(self) -> str:
        """Changes with any byte of the bundle."""
        return files.digest(self.path / MANIFEST)[:16]

    def proof(self) -> dict[str, Any]:
        """proof.json."""
        return json.loads((self.path / "proof.json").read_bytes())

    def examples(self) -> list[dict[str, Any]]:
        """examples.jsonl: id, set, group, text, label, and origin unless it is an uploaded file; empty where the file was left
        out, as in an export."""
        if not (self.path / EXAMPLES).exists():
            return []
        with (self.path / EXAMPLES).open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def unseen(self) -> list[str | None] | None:
        """unseen.json: for each line of examples.jsonl the label that a model said which had not learnt from it, None where none
        was asked; None where the file is missing, as in an export and in what older versions made."""
        try:
            said = json.loads((self.path / UNSEEN).read_bytes())
        except FileNotFoundError:
            return None
        return [None if label is None else self.facts["labels"][label] for label in said]


def write_file(folder: Path, name: str, content: bytes | str | Mapping[str, Any]) -> None:
    """Writes one file of a draft; a mapping becomes JSON. Raises StorageError."""
    if isinstance(content, Mapping):
        content = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n"
    path = folder / name
    with files.storing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, content if isinstance(content, bytes) else content.encode("utf-8"))


def seal(folder: Path) -> None:
    """Writes the manifest: the hash of every file in `folder`."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [f"{files.digest(folder / name)}  {name}\n" for name in names if name != MANIFEST]
    write_file(folder, MANIFEST, "".join(lines))


def open_bundle(path: Path) -> Bundle:
    """The bundle at `path`, every byte checked.

    Raises BundleError: bundle_missing, bundle_incomplete, bundle_damaged, bundle_newer.
    """
    bundle = read_facts(path)
    _check(path)
    return bundle


def read_facts(path: Path) -> Bundle:
    """The bundle at `path` of which only bundle.json was read, for lists: nothing else of it is checked.

    Raises BundleError as `open_bundle`.
    """
    if not (path / "bundle.json").is_file():
        raise BundleError("bundle_missing", _("{path} is not a bundle.").format(path=path),
                          expected=_("a folder made by `machikoba tune`"),
                          found=_("a folder without bundle.json") if path.is_dir() else _("nothing there"),
                          next=_("`machikoba bundles` lists those that are here."))
    try:
        facts = json.loads((path / "bundle.json").read_bytes())
        version = int(facts["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, "bundle.json") from error
    if version > FORMAT:
        raise BundleError("bundle_newer", _("{path} was made by a newer machikoba.").format(path=path.name),
                          expected=_("format {n} or older").format(n=FORMAT), found=_("format {n}").format(n=version),
                          next=_("Update machikoba: pip install --upgrade machikoba"))
    if not (path / MANIFEST).is_file():
        raise _incomplete(path, MANIFEST)
    return Bundle(path, facts)


@contextmanager
def unmoved(path: Path) -> Iterator[None]:
    """Makes a BundleError, bundle_incomplete, of a file of the bundle that was deleted while the bundle is read."""
    try:
        yield
    except FileNotFoundError as error:
        raise _incomplete(path, Path(error.filename or str(error)).name) from error


def stamp(path: Path) -> Stamp | None:
    """What changes when the bundle at `path` is written again; None where there is none."""
    try:
        seen = (path / MANIFEST).stat()
    except OSError:
        return None
    return seen.st_mtime_ns, seen.st_size, seen.st_ino


def sealed_files(path: Path) -> dict[str, str]:
    """The hash of every file, by name, as the bundle at `path` lists them. Raises BundleError."""
    try:
        listed = (path / MANIFEST).read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _incomplete(path, MANIFEST) from error
    # By no other character that could be read as a line's end.
    lines = [line.partition("  ") for line in listed[:-1].split("\n")]
    found = {name: digest for digest, _space, name in lines}
    if not listed.endswith("\n") or "bundle.json" not in found:
        raise _damaged(path, MANIFEST)
    return found


def _check(path: Path) -> None:
    for name, digest in sealed_files(path).items():
        if not (path / name).is_file():
            raise _incomplete(path, name)
        if files.digest(path / name) != digest:
            raise _damaged(path, name)


def _incomplete(path: Path, name: str) -> BundleError:
    return BundleError("bundle_incomplete", _("A file of {path} is missing.").format(path=path.name), expected=name,
                       found=_("nothing there"), next=_("Copy the whole folder again, or tune again."))


def _damaged(path: Path, name: str) -> BundleError:
    return BundleError("bundle_damaged", _("A file of {path} was changed after it was made.").format(path=path.name),
                       expected=_("the bytes that {manifest} lists").format(manifest=MANIFEST), found=name,
                       next=_("Copy the whole folder again from where it was made, or tune again."))


def find_bundle(name: str, home: Path) -> Path:
    """The path that `name` means: a path, or the name of a bundle in the home."""
    path = Path(name).expanduser()
    if path.exists():
        return path
    kept = home / "bundles" / (name if name.endswith(SUFFIX) else name + SUFFIX)
    return kept if kept.exists() else path


def list_bundles(home: Path) -> list[Bundle]:
    """The bundles in the home that can be opened, by name."""
    found = []
    for path in sorted((home / "bundles").glob(f"*{SUFFIX}")):
        try:
            found.append(open_bundle(path))
        except BundleError:
            continue
    return found
