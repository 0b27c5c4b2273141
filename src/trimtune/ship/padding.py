"""Rows far apart in length, with other rows' tokens behind the mask: an engine that lets them in answers otherwise.

The gate's usual batches hold rows of like length and so hardly any padding. In float formats the little there is shows; in int8,
whose differences aren't judged, a mask that is ignored went by with nine labels in ten unchanged.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune import parts
from trimtune.engines import _threads
from trimtune.process import threads

if TYPE_CHECKING:
    import numpy as np

ROWS = 32


def model(folder: Path, task: str, texts: list[str], max_length: int) -> np.ndarray:
    """Logits [N, C] of a model folder in PyTorch, float32, of all texts in one batch."""
    import torch

    module = parts.load("task", task)
    ready = module.load_model(folder)
    inputs = batch(module, module.load_tokenizer(folder), texts, max_length)
    with torch.inference_mode():
        found: np.ndarray = ready(**{name: torch.from_numpy(values) for name, values in inputs.items()}).logits.float().numpy()
    return found


def engine(folder: Path, name: str, task: str, texts: list[str], max_length: int) -> np.ndarray:
    """The same of a runnable folder by its engine."""
    module = parts.load("task", task)
    run = _threads.load(name, folder, threads())
    found: np.ndarray = run(batch(module, module.load_tokenizer(folder), texts, max_length))
    return found


def batch(task: Any, tokenizer: Any, texts: list[str], max_length: int) -> dict[str, np.ndarray]:
    """`input_ids` and `attention_mask`, int64 [N, T], T twice the longest row and at most `max_length`; masked places hold tokens
    of the rows.
    """
    import numpy as np

    inputs: dict[str, np.ndarray] = task.encode(tokenizer, [text if text.strip() else " " for text in texts], max_length)
    longest = inputs["input_ids"].shape[1]
    more = min(2 * longest, max_length) - longest
    sides = (more, 0) if tokenizer.padding_side == "left" else (0, more)
    ids_NT, mask_NT = (np.pad(inputs[name], ((0, 0), sides)) for name in ("input_ids", "attention_mask"))
    real = ids_NT[mask_NT == 1]
    others_NT = np.resize(np.roll(real, longest), ids_NT.shape)  # rolled, or the first row would be followed by itself
    return {"input_ids": np.where(mask_NT == 1, ids_NT, others_NT), "attention_mask": mask_NT}
