"""What learns in a model, and how it is kept: the head's place, trained tensors by name, the tuned model folder."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trimtune.errors import TrimtuneError
from trimtune.store import link_tree
from trimtune.tasks.text_classification import HEADS

if TYPE_CHECKING:
    import torch

WEIGHTS = "model.safetensors"


def head_of(model: torch.nn.Module) -> torch.nn.Module:
    """The task head of a transformers model.

    Raises:
        TrimtuneError: the model has none under the names that transformers uses.
    """
    found = next((child for name, child in model.named_children() if name in HEADS), None)
    if found is not None:
        return found
    raise TrimtuneError(f"head: {type(model).__name__} has no head that is known.", f"Known names: {', '.join(HEADS)}.",
                        "Use another method, such as `lora`, or another model.")


def trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The parameters that learn, by name, in the model's order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def counts(model: torch.nn.Module) -> dict[str, int]:
    """Parameters of the model and those of them that learn."""
    return {"parameters": sum(parameter.numel() for parameter in model.parameters()),
            "trained_parameters": sum(parameter.numel() for parameter in trained(model).values())}


def save(folder: Path, base: Path, model: Any, values: dict[str, torch.Tensor], task: ModuleType, model_name: str) -> None:
    """Write a tuned model folder: the base's files, and what was learned in `values` (float32 tensors by parameter name).

    A PEFT model leaves its adapter and head in `adapter/`, beside the untouched base; any other model leaves new weights.
    """
    import torch
    from peft import PeftModel

    if isinstance(model, PeftModel):
        link_tree(base, folder)
        model.float()
        with torch.no_grad():
            for name, parameter in trained(model).items():
                parameter.copy_(values[name])
        for settings in model.peft_config.values():
            settings.base_model_name_or_path = model_name
        model.save_pretrained(str(folder / task.ADAPTER), save_embedding_layers=False)
        (folder / task.ADAPTER / "README.md").unlink(missing_ok=True)
        _in_order(folder / task.ADAPTER / "adapter_config.json")
        return
    link_tree(base, folder, skip=("artifact.json", WEIGHTS, "config.json"))
    fresh = task.load_base(base)
    fresh_parameters = dict(fresh.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            fresh_parameters[name].copy_(value)
    fresh.save_pretrained(folder)


def _in_order(path: Path) -> None:
    """PEFT writes sets in the order of this process's hashes; sorted, the same fit gives the same bytes in any process."""
    config = {name: sorted(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else value
              for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
