"""A classifier that was written in the number format in which it runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.engines import _graph, _sparse_torch
from trimtune.tasks import _pretrained, _shapes, text_classification

if TYPE_CHECKING:
    import torch


def read(folder: Path, dtype: torch.dtype) -> torch.nn.Module:
    """The model in the dtype that it is stored in: no float32 copy, so the peak of memory is what the format promises."""
    from transformers import AutoModelForSequenceClassification as Auto

    sparse = _graph.noted(folder)["numerics"] == "sparse"
    model: Any = (_shapes.filled(Auto, folder, _sparse_torch.state_of(folder), "sdpa", dtype) if sparse
                  else _shapes.read(Auto, folder, "sdpa", dtype))
    if (folder / text_classification.ADAPTER).is_dir():
        model = _pretrained.beside_adapter(model, folder).to(dtype)
    ready: torch.nn.Module = model.eval()
    return ready.requires_grad_(False)
