"""What a method's fits will take, forecast by timing a few of its real steps in a process of their own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.errors import StepFailed
from trimtune.process import peak_memory_mb
from trimtune.records import Artifact, Study, Use
from trimtune.store import Store
from trimtune.study import data
from trimtune.tune import batches, loop, precision
from trimtune.tune.optimizer import Masters
from trimtune.tune.precision import working_precision
from trimtune.tune.trainable import trained

_STEPS = 3


def of(method: Use, study: Study, base: Artifact, rows: Artifact, store: Store) -> dict[str, Any]:
    """Minutes of one fit (`fit_minutes`), of the search and seeds at most (`minutes`), and `memory_mb` of a fit; or `cause`.

    The forecast of a method that trains on stored features is the time to compute them: its epochs are negligible.
    """
    shared = dict(task=study.task, method=method.name, config=method.config, batch_size=study.fit.batch_size,
                  max_length=study.fit.max_length, precision_=working_precision(study, store))
    code = parts.source_hash("method", method.name) + parts.source_hash("task", study.task)
    try:
        probe = store.step("forecast", method.name, time_steps, {**shared, "base": base.folder, "rows": rows.folder},
                           config=shared, parents=(base, rows), code=code)
    except StepFailed as failure:
        return {"cause": failure.cause}
    on_features = getattr(parts.load("method", method.name), "ON_FEATURES", False)
    seconds = probe.facts["features_seconds"] if on_features else probe.facts["epoch_seconds"] * study.fit.epochs
    fit_minutes = seconds / 60
    fits = 1 if on_features else study.budget.trials
    search = min(fits * fit_minutes, max(study.budget.minutes, fit_minutes))
    seeds = 0 if on_features else (study.budget.seeds - 1) * fit_minutes
    return {"fit_minutes": fit_minutes, "minutes": search + seeds, "memory_mb": probe.facts["memory_mb"],
            "tokens_per_epoch": probe.facts["tokens"]}


def time_steps(folder: Path, *, base: Path, rows: Path, task: str, method: str, config: dict[str, Any], batch_size: int,
               max_length: int, precision_: str) -> dict[str, Any]:
    """Seconds of one epoch (with its validation) and of one pass without gradients, scaled up from a few batches."""
    import torch

    part, settings = parts.load("task", task), parts.load("method", method)
    model = loop.prepared(part, settings, settings.Config(**config), base, seed=0)
    splits, originals = data.load(rows), [parameter.detach().clone() for parameter in trained(model).values()]
    model.to(precision.dtype(precision_))
    feed = loop.token_feed(model, splits.train, part.load_tokenizer(base), max_length)
    masters = Masters(list(trained(model).values()), originals, 1e-6, 1000)
    plan = sorted(batches.order(feed.lengths, batch_size, 0, 0), key=lambda batch: max(feed.lengths[row] for row in batch))
    chosen = [plan[len(plan) * at // (_STEPS + 1)] for at in range(1, _STEPS + 1)] + [plan[-1]]
    model.train()
    train_seconds = forward_seconds = 0.0
    positions = 0
    for turn, batch in enumerate([chosen[0], *chosen]):
        started = time.perf_counter()
        part.loss(feed.logits(batch), feed.labels[batch]).backward()
        masters.step()
        if turn == 0:
            continue  # the first step pays for allocations
        train_seconds += time.perf_counter() - started
        with torch.inference_mode():
            started = time.perf_counter()
            feed.logits(batch)
            forward_seconds += time.perf_counter() - started
        positions += len(batch) * max(feed.lengths[row] for row in batch)
    tokens = sum(feed.lengths)
    share = len(splits.validation.labels) / len(splits.train.labels)
    return {"epoch_seconds": (train_seconds + share * forward_seconds) * tokens / positions, "tokens": tokens,
            "features_seconds": (1 + share) * forward_seconds * tokens / positions,
            "memory_mb": peak_memory_mb()}
