"""The only training loop, and the step that fits one method at one learning rate with it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trimtune import parts
from trimtune.process import emit
from trimtune.study import data
from trimtune.tune import (
    batches,
    boundary,
    checkpoint,
    device,
    dropout,
    first_token,
    fused_lora,
    heap,
    memory,
    parallel,
    precision,
    trainable,
    vocabulary,
)
from trimtune.tune.attention import register as register_attention
from trimtune.tune.checkpoint import Checkpoints
from trimtune.tune.feeds import Feed, feature_feeds, token_feed
from trimtune.tune.optimizer import Masters
from trimtune.tune.parallel import ALONE, Team

if TYPE_CHECKING:
    import torch


@dataclass
class Fitted:
    """How a training run went: validation accuracy (`curve`), mean training loss and training seconds so far, per epoch.

    `loss_sum` is what the batches of the epoch at hand add up to, a number or a tensor that the device still works on.
    `best` holds the float32 values of the trained parameters at the best epoch, which ended after `best_steps` steps.
    """

    curve: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    loss_sum: Any = 0.0
    after_seconds: list[float] = field(default_factory=list)
    best: list[torch.Tensor] = field(default_factory=list)
    best_steps: int = 0
    pruned: bool = False
    seconds: float = 0.0
    rows: int = 0
    tokens: int = 0
    checkpoint_seconds: float = 0.0

    @property
    def score(self) -> float:
        return max(self.curve)

    @property
    def waited(self) -> int:
        """Epochs since the best one."""
        return len(self.curve) - 1 - self.curve.index(self.score)

    @property
    def seconds_to_99(self) -> float:
        return next(seconds for seconds, score in zip(self.after_seconds, self.curve, strict=True) if score >= 0.99 * self.score)

    def facts(self) -> dict[str, Any]:
        return {"validation_accuracy": self.score, "curve": self.curve, "losses": self.losses, "pruned": self.pruned,
                "epochs_run": len(self.curve), "train_seconds": self.seconds, "seconds_to_99": self.seconds_to_99,
                "checkpoint_seconds": self.checkpoint_seconds, "rows_per_s": self.rows / self.seconds,
                "tokens_per_s": self.tokens / self.seconds}


def train(model: torch.nn.Module, masters: Masters, feed: Feed, validation: Feed, loss: Callable[..., torch.Tensor], *,
          epochs: int, passes: int = 1, batch_size: int, at_once: int = 0, seed: int, stop_below: Sequence[float] = (),
          patience: int = 0, keep: Checkpoints | None = None, team: Team = ALONE) -> Fitted:
    """Train `model` in place through `masters` and keep its best epoch by validation accuracy.

    Args:
        at_once: rows per forward pass; a batch of more is accumulated, to the same gradient. 0: the whole batch.
        passes: passes over the rows per epoch; the validation rows are asked once per epoch.
        stop_below: per epoch the score under which the fit is given up (pruned).
        patience: epochs without a better score after which the fit ends; 0 for none. The learning rate falls as if it didn't.
        keep: where it leaves its state now and then, and goes on from if there is one.
        team: the processes that share each batch.
    """
    from accelerate import Accelerator

    place = device.of(model)
    accelerator, fitted = Accelerator(cpu=place.type == "cpu"), Fitted()
    if keep:
        keep.restore(model, masters, fitted)
    for epoch in range(len(fitted.curve), epochs):
        order = [batch for turn in range(passes)
                 for batch in batches.order(feed.lengths, batch_size, seed, epoch * passes + turn)]
        model.train()
        started = time.perf_counter()
        for batch in order[masters.step_count - epoch * len(order):]:
            for rows, weight in team.pieces(batch, at_once):
                share = loss(*feed.answered(rows)) * weight
                accelerator.backward(share)
                fitted.loss_sum += share.detach()
            masters.step()
            fitted.rows += len(batch)
            fitted.tokens += sum(feed.lengths[row] for row in batch)
            fitted.seconds += time.perf_counter() - started
            emit("progress", text="fit", done=fitted.rows, total=epochs * passes * len(feed.lengths))
            if keep:
                keep.save_if_due(model, masters, fitted)
            started = time.perf_counter()
        device.wait(place)
        fitted.seconds += time.perf_counter() - started
        score = accuracy(model, validation, batch_size, team)
        if score > max(fitted.curve, default=-1.0):
            fitted.best, fitted.best_steps = masters.snapshot(), masters.step_count
        fitted.curve.append(score)
        fitted.losses.append(team.total(float(fitted.loss_sum)) / team.size / len(order))
        fitted.loss_sum = 0.0
        fitted.after_seconds.append(fitted.seconds)
        if epoch < len(stop_below) and epoch + 1 < epochs and score < stop_below[epoch]:
            fitted.pruned = True
            break
        if patience and fitted.waited >= patience:
            break
    return fitted


def accuracy(model: torch.nn.Module, feed: Feed, batch_size: int, team: Team = ALONE) -> float:
    """The share of rows whose largest logit is at their label."""
    import torch

    model.eval()
    right = 0
    with torch.inference_mode():
        for batch in batches.by_length(feed.lengths, batch_size * 2):
            ((mine, weight),) = team.pieces(batch)
            logits, labels = feed.answered(mine)
            right += int((logits.argmax(-1) == labels).sum()) * (weight > 0)
    return team.total(right) / len(feed.lengths)


def fit(folder: Path, *, base: Path, rows: Path, task: str, model_name: str, method: str, config: dict[str, Any],
        learning_rate: float, epochs: int, batch_size: int, max_length: int, precision_: str, seed: int,
        stop_below: Sequence[float] = (), patience: int = 0, features_: Path | None = None,
        class_weights: str = "none", attention_: str = "eager", processes: int = 1) -> dict[str, Any]:
    """Fit one method at one learning rate; write the tuned model folder into `folder` and return its facts.

    With several `processes`, each calls this under torchrun; the first one's precision counts, and it alone writes.
    """
    heap.prepare()
    team = parallel.join(processes)
    precision_ = team.of_first(precision_)
    part, settings = parts.load("task", task), parts.load("method", method)
    config_ = settings.Config(**config)
    model = prepared(part, settings, config_, base, seed, team.of_first(attention_))
    count, splits = trainable.counts(model), data.load(rows)
    on_features = features_ is not None and not (features_ / boundary.FILE).exists()
    if features_ is None or not on_features:
        tokenizer = part.load_tokenizer(base)
        feed, validation = (token_feed(model, split, tokenizer, max_length) for split in (splits.train, splits.validation))
    else:
        feed, validation = feature_feeds(model, features_, splits)
    table = vocabulary.narrow(model, feed.tokens | validation.tokens)
    names = list(trainable.trained(model))
    originals = [parameter.detach().clone() for parameter in trainable.trained(model).values()]
    reduce = parallel.spread(model, precision.dtype("fp32" if on_features else precision_), team)
    if features_ is not None and not on_features:
        feed, validation = boundary.feeds(model, features_, settings.top_layers(config_), feed, validation)
    passes = getattr(config_, "passes", 1)
    steps = epochs * passes * -(-len(feed.lengths) // batch_size)
    at_once = 0 if on_features else memory.rows_at_once(model, batch_size, max(feed.lengths), precision.dtype(precision_))
    at_once = min(team.gathered(at_once))
    masters = Masters(list(trainable.trained(model).values()), originals, learning_rate, steps, reduce)
    fitted = train(model, masters, feed, validation, weighted(part, class_weights, splits), epochs=epochs, passes=passes,
                   batch_size=batch_size, at_once=at_once, seed=seed, team=team, stop_below=stop_below, patience=patience,
                   keep=checkpoint.of(folder, team))
    learned = {name: parallel.whole(value) for name, value in zip(names, fitted.best, strict=True)}
    if table:
        learned[table.name] = table.full(learned[table.name], masters.decay(fitted.best_steps))
    if team.rank == 0:
        trainable.save(folder, base, model, learned, dict(zip(names, originals, strict=True)), part, model_name)
    return {**fitted.facts(), **count, "learning_rate": learning_rate, "precision": precision_, "rows_at_once": at_once,
            **device.facts(device.of(model))}


def weighted(part: ModuleType, class_weights: str, splits: data.Rows) -> Callable[..., torch.Tensor]:
    """The task's loss, with its classes weighted by their frequency in the training rows if asked for."""
    return partial(part.loss, weights_C=part.class_weights(class_weights, splits.train.labels, len(splits.facts.labels)))


def prepared(part: ModuleType, method: ModuleType, config: Any, base: Path, seed: int,
             attention: str = "eager") -> torch.nn.Module:
    """The base model made ready by the method, in float32, with the generators seeded: its new weights follow from the seed."""
    set_seed(seed)
    register_attention()
    base_model = _quiet(part.load_base(base, attention))
    first_token.narrow(base_model)
    model: torch.nn.Module = method.prepare(base_model, config, part.PEFT_TASK)
    dropout.quicken(model, seed)
    fused_lora.fuse(model, seed)
    return model


def recover(module: torch.nn.Module, rows_folder: Path, source: Path, learning_rate: float, epochs: int, batch_size: int,
            max_length: int, seed: int, task: str = "text_classification", precision_: str = "auto",
            class_weights: str = "none", folder: Path | None = None) -> dict[str, Any]:
    """Train all parameters of a trimmed module in place, at its best epoch by validation; returns the fit's facts.

    `folder` is the one that the trim is being made in: a trim that is killed then goes on in the middle of this fit.
    """
    import torch

    heap.prepare()
    part = parts.load("task", task)
    set_seed(seed)
    _quiet(module).requires_grad_(True)
    first_token.narrow(module)
    tokenizer, splits, chosen = part.load_tokenizer(source), data.load(rows_folder), precision.choose(precision_)
    feed, validation = (token_feed(module, split, tokenizer, max_length) for split in (splits.train, splits.validation))
    table = vocabulary.narrow(module, feed.tokens | validation.tokens)
    names = list(trainable.trained(module))
    originals = [parameter.detach().clone() for parameter in module.parameters()]
    module.to(device.here(), precision.dtype(chosen))
    masters = Masters(list(module.parameters()), originals, learning_rate, epochs * -(-len(feed.lengths) // batch_size))
    at_once = memory.rows_at_once(module, batch_size, max(feed.lengths), precision.dtype(chosen))
    fitted = train(module, masters, feed, validation, weighted(part, class_weights, splits), epochs=epochs, batch_size=batch_size,
                   at_once=at_once, seed=seed, keep=checkpoint.of(folder) if folder else None)
    module.to("cpu", torch.float32)
    learned = dict(zip(names, fitted.best, strict=True))
    if table:
        learned[table.name] = table.full(learned[table.name], masters.decay(fitted.best_steps))
        table.undo()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(learned[name])
    module.eval().requires_grad_(False)
    return {**fitted.facts(), "learning_rate": learning_rate, "precision": chosen}


def set_seed(seed: int) -> None:
    """Seed every generator that a fit draws from."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)  # noqa: NPY002 - the generator that libraries draw from
    torch.manual_seed(seed)


def _quiet(model: torch.nn.Module) -> torch.nn.Module:
    dropout.silence_frozen(model)
    return model
