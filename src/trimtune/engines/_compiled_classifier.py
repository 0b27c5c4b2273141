"""Classifiers compiled by torch.compile: the whole model, from tokens to logits.

    logits_BC = compiled(input_ids [B, T], attention_mask [B, T]); B and T are symbols of the graph

So two graphs serve everything: one for a single row, one for more. A few more are allowed; beyond them a call fails, where torch
would quietly go on uncompiled and be measured as compiled.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trimtune.engines import _graph
from trimtune.engines._compiled import compiled, leave_open
from trimtune.engines._stored_classifier import read
from trimtune.tasks import text_classification
from trimtune.trim._model_folder import write
from trimtune.tune.precision import dtype

_FORMATS = {"auto": ("fp32", "bf16"), "fp32": ("fp32",), "bf16": ("bf16",)}


def runner(model: Any, compile_: bool = True, freezing: bool = False) -> _graph.Run:
    """Logits [B, C] of a classifier in the format of its weights.

    Args:
        freezing: of weights, into each graph.
        compile_: False runs it operator by operator, the plain reference of what is compiled.
    """
    import torch

    module = _graph.logits_only(model)
    forward: Any = compiled(module, freezing=freezing) if compile_ else module
    pad = model.config.pad_token_id or 0

    def run(inputs: _graph.Inputs) -> Any:
        ids_BT, mask_BT = inputs["input_ids"], inputs["attention_mask"]
        if ids_BT.shape[1] == 1:  # a size of one is never a symbol: it would cost two more graphs
            ids_BT, mask_BT = (np.pad(one, ((0, 0), (0, 1)), constant_values=fill) for one, fill in ((ids_BT, pad), (mask_BT, 0)))
        # graphs are kept apart by the caller's mode as well: it is always the same here
        with torch.inference_mode(False), torch.no_grad():
            # copied: a slice's strides are those of what it was cut from, and graphs are kept apart by strides
            given = [torch.from_numpy(np.array(one, order="C")) for one in (ids_BT, mask_BT)]
            leave_open(given, 0 if len(ids_BT) > 1 else None)
            leave_open(given, 1)
            return forward(*given).numpy()

    return run


def export(folder: Path, source: Path, precision: str, max_length: int, tolerance: Mapping[str, float],
           freezing: bool = False) -> dict[str, Any]:
    """Write config, weights, adapter and tokenizer; facts: `precision`, `freezing`, `difference` (the checked |Δlogit| of the
    compiled model to PyTorch in float32), `milliseconds` [1 row, 32 rows] of what was timed, and `left_out`: formats that
    answered too differently, with their figures.

    Args:
        tolerance: the largest |Δlogit| by number format.

    Raises:
        StepFailed: the compiled model answers differently than PyTorch.
    """
    model: Any = text_classification.load_model(source)
    runs = {name: runner(copy.deepcopy(model).to(dtype(name)), freezing=freezing) for name in _FORMATS[precision]}
    differences, left_out = _graph.passing(runs, model, max_length, tolerance, "torch_compiled")
    chosen = next(iter(differences))
    milliseconds: dict[str, list[float]] = {}
    if len(differences) > 1:
        chosen, milliseconds = _graph.fastest({name: runs[name] for name in differences}, model.config.vocab_size, max_length)
    write(model, source, folder, dtype(chosen))
    return {"precision": chosen, "freezing": freezing, "difference": differences[chosen], "milliseconds": milliseconds,
            "left_out": left_out}


def load(folder: Path) -> _graph.Run:
    """The run of a runnable folder, its two graphs compiled."""
    notes = _graph.noted(folder)
    model: Any = read(folder, dtype(notes["precision"]))
    run = runner(model, freezing=notes.get("freezing", False))
    for batch in (1, 2):
        run(_graph.rows(batch, 3, model.config.vocab_size))
    return run
