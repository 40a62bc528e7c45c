"""Unpacks a GGUF file into an ordinary Transformers folder, dequantised to float16."""
from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from machikoba.errors import BaseError
from machikoba.language import _


def convert(sources: Sequence[Path], folder: Path) -> None:
    """Writes the model in `sources` (one GGUF file, or its parts in order) into `folder`."""
    try:
        import accelerate  # noqa: F401  # Transformers reads the file through these two
        import gguf  # noqa: F401
    except ImportError as error:
        raise BaseError("gguf_missing", _("Reading a .gguf file needs the packages gguf and accelerate."), found=str(error),
                        next="pip install 'machikoba[gguf]'") from error
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        whole = sources[0]
        if len(sources) > 1:
            whole = Path(temporary) / "model.gguf"
            with whole.open("wb") as file:
                for part in sources:
                    file.write(part.read_bytes())
        # Without dequantize=True Transformers keeps 4-bit weights and unpacks them at every call: slow on a CPU.
        model = AutoModelForCausalLM.from_pretrained(
            whole.parent, gguf_file=whole.name, dtype=torch.float16, quantization_config=GgufConfig(dequantize=True))
        model.config.__dict__.pop("quantization_config", None)
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(whole.parent, gguf_file=whole.name).save_pretrained(folder)
