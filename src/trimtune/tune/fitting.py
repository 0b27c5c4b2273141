"""The step that fits one method at one learning rate."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.process import emit
from trimtune.store import write_new
from trimtune.tasks._inputs import READING
from trimtune.tune import (
    boundary,
    checkpoint,
    device,
    dropout,
    first_token,
    fused_lora,
    gelu,
    heap,
    memory,
    parallel,
    precision,
    softmax,
    trainable,
)
from trimtune.tune.feeds import Feed, feature_feeds, token_feeds
from trimtune.tune.loop import train
from trimtune.tune.trainable import Learning

if TYPE_CHECKING:
    import torch


def fit(folder: Path, *, base: Path, rows: Path, task: str, model_name: str, method: str, config: dict[str, Any],
        learning_rate: float, epochs: int, batch_size: int, max_length: int, precision_: str, seed: int,
        until: int = 0, rests: Path | None = None, patience: int = 0, features_: Path | None = None,
        class_weights: str = "none", packing_: str = "off", attention_: str = "eager", processes: int = 1,
        reading: dict[str, Any] | None = None) -> dict[str, Any]:
    """Fit one method at one learning rate; write the tuned model folder into `folder` and return its facts.

    A fit that pauses after the epoch `until` writes no model: its state lies in `rests`, the whole fit's own checkpoints.
    With several `processes`, each calls this under torchrun; the first one's precision counts, and it alone writes.
    """
    heap.prepare()
    team = parallel.join(processes)
    precision_ = team.of_first(precision_)
    part, settings = parts.load("task", task), parts.load("method", method)
    config_ = settings.Config(**config)
    model = prepared(part, settings, config_, base, seed, team.of_first(attention_))
    count, splits = trainable.counts(model), part.rows.load(rows)
    on_features = features_ is not None and not (features_ / boundary.FILE).exists()
    if features_ is None or not on_features:
        feed, validation = token_feeds(model, part, base, splits, max_length, reading, packing_, batch_size)
    else:
        feed, validation = feature_feeds(model, features_, splits)
    refuse_long(model, max_length, partial(longest, part, base, splits, max_length, reading))
    learning = Learning(model, feed.tokens | validation.tokens, precision.dtype("fp32" if on_features else precision_), team)
    if features_ is not None and not on_features:
        feed, validation = boundary.feeds(model, features_, settings.top_layers(config_), feed, validation)
    passes = getattr(config_, "passes", 1)
    steps = epochs * passes * -(-len(feed.lengths) // batch_size)
    at_once = 0 if on_features else rows_at_once(model, batch_size, feed, validation, precision_)
    at_once = min(team.gathered(at_once))
    masters = learning.masters(learning_rate, steps)
    fitted = train(model, masters, feed, validation, part.loss_of(class_weights, splits), part.score, epochs=epochs,
                   passes=passes, until=until, batch_size=batch_size, at_once=at_once, seed=seed, team=team, patience=patience,
                   keep=checkpoint.of(folder, team, rests))
    learned = learning.values(fitted.best, masters.decay(fitted.best_steps))
    if team.rank == 0 and not until:
        trainable.save(folder, base, model, learned, dict(zip(learning.names, learning.originals, strict=True)), part, model_name)
        if reading:
            write_new(folder / READING, json.dumps(reading, ensure_ascii=False) + "\n")
    parallel.leave(team)
    return {**fitted.facts(), **count, **memory_facts(model, at_once), "packed": feed.packed,
            "learning_rate": learning_rate, "precision": precision_}


def prepared(part: ModuleType, method: ModuleType, config: Any, base: Path, seed: int,
             attention: str = "eager") -> torch.nn.Module:
    """The base model made ready by the method, in float32, with the generators seeded: its new weights follow from the seed."""
    set_seed(seed)
    base_model: Any = quiet(part.load_base(base, "eager" if attention == softmax.NAME else attention))
    if attention == softmax.NAME:
        softmax.use(base_model)
    gelu.fuse(base_model)
    first_token.narrow(base_model)
    if hasattr(part, "split_off"):
        part.split_off(base_model)
    output = base_model.get_output_embeddings()
    model: torch.nn.Module = method.prepare(base_model, config, part.PEFT_TASK)
    if base_model.get_output_embeddings() is not output:
        raise TrimtuneError(f"{method.__name__.rsplit('.', 1)[-1]}: its targets include the output layer.",
                            "The layers below it can be adapted; fits compute the output layer in pieces.",
                            "Leave it out of targets, or write all-linear.")
    dropout.quicken(model, seed)
    fused_lora.fuse(model, seed)
    return model


def refuse_long(model: Any, max_length: int, longest_of: Callable[[], int]) -> None:
    """Raises TrimtuneError where a row of any split has more tokens than the model has positions: an index error, or rotary
    angles that it never saw.

    Args:
        longest_of: counts the tokens of the longest row; asked only where `max_length` would let a row be too long.
    """
    held = getattr(model.config, "max_position_embeddings", None) or max_length
    virtual = memory.virtual_tokens(model)
    longest = longest_of() if max_length + virtual > held else 0
    if longest + virtual > held:
        beside = f" and {virtual} virtual ones" if virtual else ""
        raise TrimtuneError(f"The longest row has {longest} tokens{beside}; the model has {held} positions.",
                            "Rows are as long as fit.max_length lets them be.",
                            f"Set fit.max_length to {held - virtual} or less.")


def longest(part: ModuleType, base: Path, splits: Any, max_length: int, reading: dict[str, Any] | None) -> int:
    """Tokens of the longest row of any split, as the tokenizer in `base` reads them, cut at `max_length`."""
    tokenizer = part.load_tokenizer(base)
    return max(len(row) for name in ("train", "validation", "test")
               for row in part.inputs(tokenizer, getattr(splits, name), max_length, name, **reading or {}).ids)


def rows_at_once(model: Any, batch_size: int, feed: Feed, validation: Feed, precision_: str) -> int:
    """The rows of one forward pass, so that training and validation rows fit into memory; says so where it isn't the batch."""
    at_once = memory.rows_at_once(model, batch_size, max([*feed.lengths, *validation.lengths]), precision.dtype(precision_))
    told = memory_facts(model, at_once)
    if at_once < batch_size:
        emit("note", text=f"memory: {at_once} of {batch_size} rows at once, their gradients added up"
                          + ("; blocks are run again for their backward pass" if told["recomputed"] else ""))
    return at_once


def memory_facts(model: Any, at_once: int) -> dict[str, Any]:
    """Where a fit ran, and what it did to fit in there."""
    recomputed = bool(getattr(model, "is_activation_checkpointing", False))
    return {**device.facts(device.of(model)), "rows_at_once": at_once, "recomputed": recomputed}


def set_seed(seed: int) -> None:
    """Seed every generator that a fit draws from."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)  # noqa: NPY002 - the generator that libraries draw from
    torch.manual_seed(seed)


def quiet(model: torch.nn.Module) -> torch.nn.Module:
    """The model without dropout in its frozen parts."""
    dropout.silence_frozen(model)
    return model
