"""Names of an adapter's files, as PEFT gives them: known without loading anything."""
from __future__ import annotations

PEFT_WEIGHTS, PEFT_FACTS = "adapter_model.safetensors", "adapter_config.json"

