"""What learns in a model, and how it is kept: the head's place, trained tensors by name, the tuned model folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trimtune.errors import TrimtuneError
from trimtune.store import link_tree
from trimtune.tasks.text_classification import HEADS
from trimtune.tune import packed, parallel, vocabulary
from trimtune.tune.optimizer import Masters
from trimtune.tune.parallel import ALONE, Team

if TYPE_CHECKING:
    import torch

WEIGHTS = "model.safetensors"
_ADAPTER, _SETTINGS = "adapter_model.safetensors", "adapter_config.json"
_TAKEN_OUT = ("pissa", "olora")
"""PEFT's ways to start a LoRA with a part of the frozen weight, which is taken out of that weight"""


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


class Learning:
    """What learns in a model that is made ready for it: on this process's device, in its working format, with the float32
    values that it starts from, and its token embedding cut to `tokens`."""

    def __init__(self, model: torch.nn.Module, tokens: Iterable[int], dtype: torch.dtype, team: Team = ALONE) -> None:
        self.table = vocabulary.narrow(model, tokens)
        self.names = list(trained(model))
        self.originals = [parameter.detach().clone() for parameter in trained(model).values()]
        self.reduce = parallel.spread(model, dtype, team)
        self.parameters = list(trained(model).values())

    def masters(self, learning_rate: float, steps: int) -> Masters:
        return Masters(self.parameters, self.originals, learning_rate, steps, self.reduce)

    def values(self, learned: Sequence[torch.Tensor], decay: float) -> dict[str, torch.Tensor]:
        """Float32 values by name, as the model had them before; `decay` is what is left of embedding rows without a token."""
        found = {name: parallel.whole(value).cpu() for name, value in zip(self.names, learned, strict=True)}
        if self.table:
            found[self.table.name] = self.table.full(found[self.table.name], decay)
        return found

    def undo(self) -> None:
        """Give the model its whole embedding back; its values are those before the fit."""
        if self.table:
            self.table.undo()


def counts(model: torch.nn.Module) -> dict[str, int]:
    """Parameters of the model, packed ones too, and those of them that learn."""
    return {"parameters": packed.weights(model) + sum(parameter.numel() for parameter in model.parameters()),
            "trained_parameters": sum(parameter.numel() for parameter in trained(model).values())}


def save(folder: Path, base: Path, model: Any, values: dict[str, torch.Tensor], originals: dict[str, torch.Tensor],
         task: ModuleType, model_name: str) -> None:
    """Write a tuned model folder: the base's files, and what was learned.

    A PEFT model leaves its adapter and head in `adapter/`, beside the untouched base; any other model leaves new weights. Where
    the base was packed it leaves both: the adapter was learned beside the rounded weights, so these are its base.

    Args:
        values, originals: the trained parameters by name, float32: as learned, and as they were before the first step.
    """
    import torch
    from peft import PeftModel

    if isinstance(model, PeftModel):
        if packed.weights(model):
            _write_weights(folder, base, task, packed.rounded(model))
        else:
            link_tree(base, folder)
        model.float()
        with torch.no_grad():
            for name, parameter in trained(model).items():
                parameter.copy_(values[name])
        for settings in model.peft_config.values():
            settings.base_model_name_or_path = model_name
        model.save_pretrained(str(folder / task.ADAPTER), save_embedding_layers=False)
        (folder / task.ADAPTER / "README.md").unlink(missing_ok=True)
        if any(getattr(settings, "init_lora_weights", True) in _TAKEN_OUT for settings in model.peft_config.values()):
            _for_the_untouched_base(folder / task.ADAPTER, originals)
        _in_order(folder / task.ADAPTER / _SETTINGS)
        (folder / task.ADAPTER / _ADAPTER).chmod(0o644)  # readable to others, as its other files are
        return
    _write_weights(folder, base, task, values)


def _write_weights(folder: Path, base: Path, task: ModuleType, values: dict[str, torch.Tensor]) -> None:
    """The base's files, with these values in the place of its weights of the same names."""
    import torch

    link_tree(base, folder, skip=("artifact.json", WEIGHTS, "config.json", "generation_config.json"))  # these are written anew
    fresh = task.load_base(base)
    fresh_parameters = dict(fresh.named_parameters())
    with torch.no_grad():
        for name, value in values.items():
            fresh_parameters[name].copy_(value)
    fresh.save_pretrained(folder)
    (folder / WEIGHTS).chmod(0o644)


def _for_the_untouched_base(adapter: Path, originals: dict[str, torch.Tensor]) -> None:
    """Make a saved adapter whose start was taken out of the frozen weights a LoRA of rank 2r for the weights as they were.

    (W - s·B₀A₀) + s·BA = W + s·[B, -B₀][A; A₀]. PEFT's own conversion (`path_initial_model_for_weight_conversion`) keeps
    only A and B: the head and DoRA's lengths would be lost.
    """
    import torch
    from safetensors.torch import load_file, save_file

    tensors, start = load_file(adapter / _ADAPTER), {name.replace(".default", ""): value for name, value in originals.items()}
    for name, value in tensors.items():
        if "lora_A" in name:
            tensors[name] = torch.cat([value, start[name]], 0)
        elif "lora_B" in name:
            tensors[name] = torch.cat([value, -start[name]], 1)
    save_file(tensors, adapter / _ADAPTER, metadata={"format": "pt"})
    settings = json.loads((adapter / _SETTINGS).read_text(encoding="utf-8"))
    grown = 2 ** (0.5 if settings["use_rslora"] else 1)
    settings.update(init_lora_weights=True, r=2 * settings["r"], lora_alpha=grown * settings["lora_alpha"])
    (adapter / _SETTINGS).write_text(json.dumps(settings), encoding="utf-8")


def _in_order(path: Path) -> None:
    """PEFT writes sets in the order of this process's hashes; sorted, the same fit gives the same bytes in any process."""
    config = {name: sorted(value) if isinstance(value, list) and all(isinstance(one, str) for one in value) else value
              for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
