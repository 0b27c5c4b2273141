"""Models as transformers and PEFT read them from a model folder, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.errors import TrimtuneError
from trimtune.tasks import _shapes

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ADAPTER = "adapter"
"""the folder of what a PEFT method learned, in a model folder"""


def load_base(auto: Any, folder: Path, attention: str, task: str, allowed: str, do: str) -> PreTrainedModel:
    """The model of a folder without its adapter; what the checkpoint lacks is drawn from torch's RNG.

    Args:
        auto: a class of transformers such as AutoModelForCausalLM.
        task, allowed, do: in words, for the message where the architecture has no such model.
    """
    import torch

    try:
        model: PreTrainedModel = _shapes.read(auto, folder, attention, torch.float32)
    except ValueError as error:
        if attention != "eager" and "attn_implementation" in str(error):  # this architecture has the plain one only
            return load_base(auto, folder, "eager", task, allowed, do)
        raise TrimtuneError(f"model: {folder} can't be used for {task} ({str(error).splitlines()[0]}).", allowed, do) from None
    return model


def with_adapter(model: Any, folder: Path, merge: bool) -> torch.nn.Module:
    """The model with the folder's adapter if it has one, in eval mode, frozen.

    `merge` folds an adapter into the weights where it can be folded (LoRA, IA3); prefixes and prompts stay beside them.
    """
    if (folder / ADAPTER).is_dir():
        from peft.tuners.tuners_utils import BaseTuner

        model = beside_adapter(model, folder)
        if merge and isinstance(model.base_model, BaseTuner):
            model = model.merge_and_unload()
    module: torch.nn.Module = model.eval()
    return module.requires_grad_(False)


def beside_adapter(model: Any, folder: Path) -> Any:
    """The model wrapped by PEFT, with the adapter of the folder."""
    from peft import PeftModel

    found = PeftModel.from_pretrained(model, str(folder / ADAPTER))
    see_embedding(found)
    return found


def see_embedding(wrapped: Any) -> None:
    """Let virtual tokens stand before what the model's token embedding gives.

    PEFT takes the module whose parameter has a row per token, which of a factorised embedding is the narrow half alone.
    """
    from peft import PromptLearningConfig

    if isinstance(wrapped.active_peft_config, PromptLearningConfig):
        wrapped.word_embeddings = wrapped.get_base_model().get_input_embeddings()
