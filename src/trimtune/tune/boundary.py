"""States at a frozen boundary: what enters the first layer that learns, computed once for all epochs and trials.

For methods that leave everything below their top layers as it is. The model's own code still makes the embeddings, the masks
and the rest; only its lower layers are passed by. That this gives the logits of the whole model is tried on real rows
first; where it does not (an architecture that mixes layers), nothing is stored and fits run the whole model, the
reference, whose frozen part leaves no graph.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trimtune import parts
from trimtune.process import emit, memory_mb
from trimtune.tune import batches, device, memory, precision
from trimtune.tune.layers import layers_of

if TYPE_CHECKING:
    import torch

    from trimtune.tune.feeds import Answered, Feed

FILE = "states.safetensors"
MEMORY_SHARE = 0.25
"""of this machine's memory: states that would take more are not stored"""


def compute(folder: Path, *, base: Path, rows: Path, task: str, batch_size: int, max_length: int, precision_: str,
            top_layers: int, reading: dict[str, Any]) -> dict[str, Any]:
    """Write `states.safetensors`: per split the states of all rows' tokens, one row after another, [sum T, D] in `precision_`.

    Returns the facts: `stored`, and if it is false, `why`; else tokens and the size in MB.
    """
    import torch
    from safetensors.torch import save_file

    part = parts.load("task", task)
    splits = part.rows.load(rows)
    model = _headless(part, base)
    device.put(model, precision.dtype(precision_))
    tokenizer = part.load_tokenizer(base)
    below = len(layers_of(model)) - top_layers
    if below <= 0:
        return {"stored": False, "why": "every layer learns"}
    found = {name: part.inputs(tokenizer, getattr(splits, name), max_length, name, **reading) for name in ("train", "validation")}
    ids, pad_id = {name: inputs.ids for name, inputs in found.items()}, found["train"].pad_id
    tokens = sum(len(row) for split in ids.values() for row in split)
    size = tokens * model.config.hidden_size * model.dtype.itemsize
    if size / 1e6 > MEMORY_SHARE * memory_mb():
        return {"stored": False, "why": f"they would take {size / 1e6:.0f} MB, more than {MEMORY_SHARE:.0%} of the memory"}
    with torch.inference_mode():
        if not agrees(_headless(part, base), below, ids["train"], pad_id):
            return {"stored": False, "why": f"{type(model).__name__} can't be run from layer {below} on"}
        seen: list[torch.Tensor] = []
        _watch(layers_of(model)[below], seen)
        for layer in layers_of(model)[below:]:
            pass_by(layer)
        at_once = memory.rows_alone(model, batch_size, max(len(row) for split in ids.values() for row in split), model.dtype)
        save_file({name: _of(model, seen, split, at_once, pad_id, name) for name, split in ids.items()},
                  folder / FILE)
    return {"stored": True, "tokens": tokens, "megabytes": size / 1e6, "precision": precision_}


def feeds(model: torch.nn.Module, folder: Path, top_layers: int, feed: Feed, validation: Feed) -> tuple[Feed, Feed]:
    """The same feeds, with the states in `folder` instead of the layers below the top ones. Changes the model's forward."""
    import torch
    from safetensors.torch import load_file

    stored, layers = load_file(folder / FILE), layers_of(model)
    run_from, like = enter(layers, len(layers) - top_layers), next(layers[-1].parameters())

    def fed(whole: Feed, states: torch.Tensor) -> Feed:
        rows = states.split(whole.lengths)

        def answered(batch: Sequence[int]) -> Answered:
            lines = [torch.cat([rows[row] for row in line]) for line in whole.lines(batch)]
            run_from(padded(lines).to(like))  # of another process's choice under torchrun
            return whole.answered(batch)

        return replace(whole, answered=answered)

    return fed(feed, stored["train"]), fed(validation, stored["validation"])


def sampled(model: torch.nn.Module, top_layers: int, feed: Feed, chosen: Sequence[Sequence[int]]) -> tuple[Feed, float]:
    """The feed on the states of a few batches only, and the seconds that the layers below took for these: a forecast's view."""
    import torch

    layers, seen, seconds = layers_of(model), list[torch.Tensor](), 0.0
    below = len(layers) - top_layers
    if below <= 0:
        return feed, 0.0
    hook, states = _watch(layers[below], seen), {}
    with torch.no_grad():
        feed.answered(chosen[0])  # the first call pays for allocations
        for batch in chosen:
            device.wait(device.of(model))
            started = time.perf_counter()
            feed.answered(batch)
            device.wait(device.of(model))
            seconds += (time.perf_counter() - started) * below / len(layers)
            states[tuple(batch)] = seen[-1]
    hook.remove()
    give = enter(layers, below)

    def answered(batch: Sequence[int]) -> Answered:
        give(states[tuple(batch)])
        return feed.answered(batch)

    return replace(feed, answered=answered), seconds


def enter(layers: torch.nn.ModuleList, below: int) -> Callable[[torch.Tensor], None]:
    """Make the `below` lowest layers be passed by; what enters the next one is what the returned function was last given."""
    given: list[torch.Tensor] = []

    def give(states_BTD: torch.Tensor) -> None:
        given[:] = [states_BTD]

    for layer in layers[:below]:
        pass_by(layer)
    layers[below].register_forward_pre_hook(_swapped(given), with_kwargs=True)
    return give


def pass_by(layer: Any) -> None:
    """Make a layer hand on what it is given, in the form in which it returns its states (found by running it once)."""
    real, forms = layer.forward, list[int]()

    def forward(hidden_states: torch.Tensor, *args: Any, **options: Any) -> Any:
        if not forms:
            out = real(hidden_states, *args, **options)
            forms.append(len(out) if isinstance(out, tuple) else 0)
        return (hidden_states, *[None] * (forms[0] - 1)) if forms[0] else hidden_states

    layer.forward = forward


def padded(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """[B, T, D] of rows [T_i, D], zeros on the right."""
    import torch

    return torch.nn.utils.rnn.pad_sequence([*rows], batch_first=True)


def _swapped(given: list[torch.Tensor]) -> Callable[..., Any]:
    def swap(layer: torch.nn.Module, args: tuple[Any, ...], options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return ((given[0], *args[1:]), options) if args else (args, {**options, "hidden_states": given[0]})

    return swap


def _watch(layer: torch.nn.Module, into: list[torch.Tensor]) -> Any:
    """Keep what enters a layer; returns the hook's handle."""
    return layer.register_forward_pre_hook(
        lambda _, args, options: into.append(args[0] if args else options["hidden_states"]), with_kwargs=True)


def _headless(part: ModuleType, base: Path) -> Any:
    """The frozen base in float32, without a cache or, of a language model, the logits of whole batches, which nobody asks for."""
    model = part.load_base(base).eval().requires_grad_(False)
    model.config.use_cache = False
    if hasattr(part, "split_off"):
        part.split_off(model)
    return model


def _of(model: Any, seen: list[torch.Tensor], ids: list[list[int]], batch_size: int, pad_id: int, name: str) -> torch.Tensor:
    """States [sum T, D] of all rows, in the rows' order, as the watched layer sees them."""
    import torch

    found: list[torch.Tensor] = [torch.empty(0)] * len(ids)
    done = 0
    for batch in batches.by_length([len(row) for row in ids], batch_size):
        model(**batches.pad(ids, batch, pad_id, device.of(model)))
        states = seen.pop()
        for at, row in enumerate(batch):
            found[row] = states[at, :len(ids[row])].clone().cpu()
        done += len(batch)
        emit("progress", text=f"states of {name}", done=done, total=len(ids))
    return torch.cat(found)


def agrees(model: Any, below: int, ids: list[list[int]], pad_id: int) -> bool:
    """Do the stored states of a few rows, short and long, give the answers of the whole model? In float32."""
    import torch

    by_length = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    batch = sorted({by_length[len(ids) * at // 8] for at in range(8)} | {by_length[-1]})
    seen: list[torch.Tensor] = []
    hook, inputs = _watch(layers_of(model)[below], seen), batches.pad(ids, batch, pad_id)
    def answers() -> torch.Tensor:
        logits: torch.Tensor = model(**inputs).logits
        return logits[inputs["attention_mask"].bool()] if logits.ndim == 3 else logits  # a language model answers padding too

    whole = answers()
    hook.remove()
    enter(layers_of(model), below)(padded([states[:len(ids[row])] for states, row in zip(seen[0], batch, strict=True)]))
    return torch.allclose(answers(), whole, atol=1e-4)
