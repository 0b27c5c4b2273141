"""Features at a frozen boundary: what the head sees, computed once for all rows, trials and epochs."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune import parts
from trimtune.process import emit
from trimtune.records import Artifact, Use
from trimtune.store import Store
from trimtune.study import data
from trimtune.tune import batches, boundary, device, first_token, memory, precision
from trimtune.tune.trainable import head_of

if TYPE_CHECKING:
    import torch

FILE = "features.safetensors"


def kept(method: Use, task: str, shared: dict[str, Any], reading: dict[str, Any], base: Artifact, rows: Artifact, store: Store,
         code: str) -> Artifact | None:
    """What the frozen part of a method's model gives for all rows: the head's input, or the states at a boundary.

    None for a method whose lowest layers learn, and where states can't or should not be stored (boundary.compute says why).
    """
    part, config = parts.load("method", method.name), shared
    work: Callable[..., dict[str, Any]] = compute
    if not getattr(part, "ON_FEATURES", False):
        top_layers = part.top_layers(part.Config(**method.config)) if hasattr(part, "top_layers") else None
        if top_layers is None:
            return None
        work, config = boundary.compute, {**shared, "top_layers": top_layers, "reading": reading}
        code = parts.room_hash("tune") + parts.source_hash("task", task)  # nothing of the method: others may share the states
    made = store.step("features", task, work, {**config, "base": base.folder, "rows": rows.folder}, config=config,
                      parents=(base, rows), code=code)
    return made if made.facts.get("stored", True) else None


def compute(folder: Path, *, base: Path, rows: Path, task: str, batch_size: int, max_length: int,
            precision_: str) -> dict[str, Any]:
    """Write `features.safetensors`: per split the head's input for each row, float32 [N, D] (or [N, 1, D]).

    Returns the facts: rows, features per row, and the seconds of the passes, tokenizing included.
    """
    import torch
    from safetensors.torch import save_file

    part = parts.load("task", task)
    model = part.load_base(base).eval()
    first_token.narrow(model)
    device.put(model, precision.dtype(precision_))
    tokenizer = part.load_tokenizer(base)
    found, splits, started = {}, data.load(rows), time.perf_counter()
    for name, split in (("train", splits.train), ("validation", splits.validation)):
        ids = tokenizer(split.texts, truncation=True, max_length=max_length)["input_ids"]
        at_once = memory.rows_alone(model, batch_size, max(map(len, ids)), precision.dtype(precision_))
        with torch.inference_mode():
            found[name] = _of(model, ids, at_once, tokenizer.pad_token_id, name)
    seconds = time.perf_counter() - started
    save_file(found, folder / FILE)
    return {"rows": sum(len(value) for value in found.values()), "features": found["train"].shape[-1], "precision": precision_,
            "pass_seconds": seconds}


def _of(model: torch.nn.Module, ids: list[list[int]], batch_size: int, pad_id: int, name: str) -> torch.Tensor:
    import torch

    head, seen = head_of(model), []
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    rows_seen: list[int] = []
    parts_seen: list[torch.Tensor] = []
    for batch in batches.by_length([len(row) for row in ids], batch_size):
        inputs = batches.pad(ids, batch, pad_id, device.of(model))
        logits = model(**inputs).logits
        parts_seen.append(_what_counts(head, seen.pop(), logits, inputs["attention_mask"]).float().cpu())
        rows_seen += batch
        emit("progress", text=f"features of {name}", done=len(rows_seen), total=len(ids))
    hook.remove()
    features = torch.empty((len(ids), *parts_seen[0].shape[1:]))
    features[torch.tensor(rows_seen)] = torch.cat(parts_seen)
    return features


def _what_counts(head: torch.nn.Module, x: torch.Tensor, logits_BC: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """The part of the head's input that decides the logits: all of [B, D], or one position of [B, T, D], found by trying."""
    import torch

    if x.ndim == 2 or x.shape[1] == 1:
        return x
    last = mask_BT.sum(1) - 1
    near = max(1e-2, 4 * torch.finfo(logits_BC.dtype).eps * float(logits_BC.abs().max()))  # two kernels' roundings
    for kept in (x[:, :1], x[torch.arange(len(x), device=x.device), last][:, None]):
        if torch.allclose(logits_of(head, kept).float(), logits_BC.float(), atol=near):
            return kept
    raise ValueError("this model's head looks at more than one position of the text; its features can't be stored: "
                     "tune it with top_k_layers or lora")


def logits_of(head: torch.nn.Module, features: torch.Tensor) -> torch.Tensor:
    """[B, C], from features as stored."""
    logits: torch.Tensor = head(features)
    return logits[:, 0] if logits.ndim == 3 else logits
