"""An adapter's folder in PEFT's format: which base it names, what can be done with it, and whether vLLM reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SETTINGS = "adapter_config.json"
_PUBLIC = {"minilm": "sentence-transformers/all-MiniLM-L6-v2"}
_VLLM_READS = ("r", "lora_alpha", "target_modules", "base_model_name_or_path")
_VLLM_RANK = 16
"""the highest rank that vLLM takes unasked"""


def settings(folder: Path) -> dict[str, Any]:
    """What `adapter_config.json` says."""
    found: dict[str, Any] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    return found


def base_name(model: str) -> str:
    """A study's model as the world knows it: never a path of this machine."""
    is_path = Path(model).expanduser().is_absolute() or model.startswith(".")
    return _PUBLIC.get(model, Path(model).name if is_path else model)


def name_base(folder: Path, model: str) -> None:
    """Let an adapter's settings name its base so."""
    text = json.dumps({**settings(folder), "base_model_name_or_path": base_name(model)}, indent=2, sort_keys=True)
    (folder / SETTINGS).write_text(text, encoding="utf-8")


def can_merge(folder: Path) -> bool:
    """Whether weights can hold the adapter: virtual tokens stand beside them."""
    return "num_virtual_tokens" not in settings(folder)


def vllm_lacks(config: dict[str, Any]) -> str | None:
    """Why vLLM can't serve an adapter with these settings beside its base; None if it can.

    By what its `PEFTHelper` reads and refuses: LoRA without biases, DoRA or layers that were saved whole.
    """
    if config.get("peft_type") != "LORA":
        return f"it serves LoRA only, and this is {config.get('peft_type', 'no adapter')}"
    absent = [name for name in _VLLM_READS if not config.get(name)]
    if absent:
        return f"its settings lack {', '.join(absent)}"
    if config.get("bias", "none") != "none":
        return "it takes no LoRA with biases"
    if config.get("use_dora"):
        return "it takes no DoRA"
    if config.get("modules_to_save"):
        return f"it takes no layers that were saved whole ({', '.join(config['modules_to_save'])})"
    return None


def vllm_command(base: str, name: str, folder: str, config: dict[str, Any]) -> str:
    """How vLLM serves it."""
    ranks = [int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())]
    wide = f" --max-lora-rank {max(ranks)}" if max(ranks) > _VLLM_RANK else ""
    return f"vllm serve {base} --enable-lora{wide} --lora-modules {name}={folder}"
