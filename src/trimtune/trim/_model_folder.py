"""A model in memory becomes a model folder: a plain transformers folder, and `adapter/` for what can't be folded into weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trimtune.tasks import _pretrained, text_classification
from trimtune.tasks._inputs import READING

if TYPE_CHECKING:
    import torch


def base_of(module: torch.nn.Module) -> Any:
    """The transformers model itself; inside PEFT's wrapper if prefixes or prompts stand beside it."""
    from peft import PeftModel

    return module.get_base_model() if isinstance(module, PeftModel) else module


def plain_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The base's tensors by their transformers names, with the tuned head in the place of the one that PEFT set aside."""
    return {name.replace(".modules_to_save.default.", "."): tensor for name, tensor in base_of(module).state_dict().items()
            if ".original_module." not in name}


def write(module: torch.nn.Module, source: Path, folder: Path, dtype: torch.dtype | None = None,
          task: ModuleType = text_classification) -> None:
    """Write config, weights (in `dtype` if given), adapter and the tokenizer of `source` into `folder`."""
    state = {name: tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
             for name, tensor in plain_state(module).items()}
    base_of(module).save_pretrained(folder, state_dict=state)
    write_beside(module, source, folder, task)


def write_beside(module: torch.nn.Module, source: Path, folder: Path, task: ModuleType = text_classification) -> None:
    """Write what stands beside the weights: the adapter, if there is one, and the tokenizer of `source`."""
    from peft import PeftModel

    if isinstance(module, PeftModel):
        module.save_pretrained(str(folder / _pretrained.ADAPTER), save_embedding_layers=False)
        (folder / _pretrained.ADAPTER / "README.md").unlink(missing_ok=True)
    task.load_tokenizer(source).save_pretrained(folder)
    if (source / READING).is_file():
        shutil.copy2(source / READING, folder / READING)


def size(module: torch.nn.Module) -> int:
    """How many parameters a model has."""
    return sum(parameter.numel() for parameter in module.parameters())
