"""A model folder becomes a model that trims can change, and a model in memory a model folder: a plain transformers folder, and
`adapter/` for what can't be folded into weights.

GPT-2 keeps its linear layers transposed, W [K, N] (Conv1D of transformers). While a model is trimmed they are ordinary ones,
W [N, K], and what is written is transposed again: no trim needs to know.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trimtune.tasks import _pretrained, text_classification
from trimtune.tasks._inputs import READING

if TYPE_CHECKING:
    import torch


def load(source: Path, task: ModuleType, attention: str = "sdpa") -> torch.nn.Module:
    """The model of a folder as trims change it: float32, eval mode, frozen, all its linear layers `torch.nn.Linear`.

    A language model hands out the states before its output layer, if the task can part the two: logits of whole batches would
    be its largest tensor.
    """
    module: torch.nn.Module = task.load_model(source, attention=attention)
    straighten(base_of(module))
    if hasattr(task, "split_off"):
        task.split_off(module)
    return module


def straighten(base: Any) -> None:
    """Put an ordinary linear layer in the place of each transposed one, in place."""
    import torch
    from transformers.pytorch_utils import Conv1D

    for name, layer in list(base.named_modules()):
        if isinstance(layer, Conv1D):
            straight = torch.nn.Linear(*layer.weight.shape)
            straight.weight, straight.bias = torch.nn.Parameter(layer.weight.detach().t().contiguous()), layer.bias
            straight.transposed = True  # type: ignore[assignment]
            base.set_submodule(name, straight.requires_grad_(False))


def base_of(module: torch.nn.Module) -> Any:
    """The transformers model itself; inside PEFT's wrapper if prefixes or prompts stand beside it."""
    from peft import PeftModel

    return module.get_base_model() if isinstance(module, PeftModel) else module


def plain_state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The base's tensors by their transformers names and as transformers holds them, with the tuned head in the place of the one
    that PEFT set aside."""
    state = {name.replace(".modules_to_save.default.", "."): tensor for name, tensor in base_of(module).state_dict().items()
             if ".original_module." not in name}
    for name, layer in base_of(module).named_modules():
        if getattr(layer, "transposed", False):
            state[f"{name}.weight"] = state[f"{name}.weight"].t().contiguous()
    return state


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
