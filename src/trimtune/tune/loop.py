"""The only training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trimtune.errors import StepFailed
from trimtune.process import emit
from trimtune.tune import batches, device, memory
from trimtune.tune.checkpoint import Checkpoints
from trimtune.tune.feeds import Feed
from trimtune.tune.optimizer import Masters
from trimtune.tune.parallel import ALONE, Team

if TYPE_CHECKING:
    import torch

Judge = Callable[..., "torch.Tensor"]

@dataclass
class Fitted:
    """How a training run went, per epoch: validation score (`curve`), mean training loss, and training seconds so far.

    `loss_sum` is what the batches of the epoch at hand add up to, a number or a tensor that the device still works on.
    `best` holds the float32 values of the trained parameters at the best epoch, which ended after `best_steps` steps.
    """

    curve: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    loss_sum: Any = 0.0
    after_seconds: list[float] = field(default_factory=list)
    best: list[torch.Tensor] = field(default_factory=list)
    best_steps: int = 0
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
        """Seconds until a score within 1% of the best one."""
        enough = self.score - 0.01 * abs(self.score)
        return next(seconds for seconds, score in zip(self.after_seconds, self.curve, strict=True) if score >= enough)

    def facts(self) -> dict[str, Any]:
        return {"validation_score": self.score, "curve": self.curve, "losses": self.losses,
                "epochs_run": len(self.curve), "train_seconds": self.seconds, "seconds_to_99": self.seconds_to_99,
                "checkpoint_seconds": self.checkpoint_seconds, "rows_per_s": self.rows / self.seconds,
                "tokens_per_s": self.tokens / self.seconds}


def train(model: torch.nn.Module, masters: Masters, feed: Feed, validation: Feed, loss: Judge, score: Judge, *,
          epochs: int, until: int = 0, passes: int = 1, batch_size: int, at_once: int = 0, seed: int, patience: int = 0,
          keep: Checkpoints | None = None, team: Team = ALONE) -> Fitted:
    """Train `model` in place through `masters` and keep its best epoch by validation score.

    Args:
        loss, score: of what a feed answers: a mean over what counts, and a sum; higher is better, NaN where answers are none.
        at_once: rows per forward pass; a batch of more is accumulated, to the same gradient. 0: the whole batch.
        passes: passes over the rows per epoch; the validation rows are asked once per epoch.
        until: the epoch after which it pauses, its state kept; 0 for none.
        patience: epochs without a better score after which the fit ends; 0 for none. The learning rate falls as if it didn't.
        keep: where it leaves its state now and then, and goes on from if there is one.
        team: the processes that share each batch.

    A fit whose loss or answers are no numbers any more ends with its best epoch so far.

    Raises:
        StepFailed: there is no such epoch.
    """
    place, fitted = device.of(model), Fitted()
    if keep:
        keep.restore(model, masters, fitted)
    for epoch in range(len(fitted.curve), until or epochs):
        if patience and fitted.curve and fitted.waited >= patience:
            break
        order = [batch for turn in range(passes)
                 for batch in batches.order(feed.lengths, batch_size, seed, epoch * passes + turn)]
        model.train()
        started = time.perf_counter()
        for batch in order[masters.step_count - epoch * len(order):]:
            for rows, weight in team.pieces(batch, at_once, feed.counts):
                share = loss(*feed.answered(rows)) * weight
                share.backward()
                masters.gather()
                fitted.loss_sum += share.detach()
            masters.step()
            fitted.rows += len(batch)
            fitted.tokens += sum(feed.lengths[row] for row in batch)
            fitted.seconds += time.perf_counter() - started
            emit("progress", text="fit", done=fitted.rows, total=(until or epochs) * passes * len(feed.lengths))
            if keep:
                keep.save_if_due(model, masters, fitted)
            started = time.perf_counter()
        device.wait(place)
        fitted.seconds += time.perf_counter() - started
        loss_mean = team.total(float(fitted.loss_sum)) / team.size / len(order)
        reached = scored(model, validation, score, memory.rows_answered(at_once, batch_size), team)
        if not math.isfinite(loss_mean + reached):
            if not fitted.curve:
                what = "answers are" if math.isfinite(loss_mean) else "loss is"
                raise StepFailed(f"the fit diverged: its {what} no number after epoch 1 at learning rate "
                                 f"{masters.learning_rate:g}; try a lower one")
            emit("warning", text=f"the fit diverged in epoch {epoch + 1}; its best epoch before counts")
            break
        if reached > max(fitted.curve, default=-math.inf):
            fitted.best, fitted.best_steps = masters.snapshot(), masters.step_count
        fitted.curve.append(reached)
        fitted.losses.append(loss_mean)
        fitted.loss_sum = 0.0
        fitted.after_seconds.append(fitted.seconds)
    if keep and until:
        keep.save(model, masters, fitted)
    return fitted


def scored(model: torch.nn.Module, feed: Feed, score: Judge, rows: int, team: Team = ALONE) -> float:
    """The mean score of a feed's rows, NaN if an answer is no number; `rows` are answered together."""
    import torch

    model.eval()
    total: Any = 0.0
    with torch.inference_mode():
        for batch in batches.by_length(feed.lengths, rows):
            ((mine, weight),) = team.pieces(batch)
            total += score(*feed.answered(mine)) * (weight > 0)
    return team.total(float(total)) / sum(feed.counts)
