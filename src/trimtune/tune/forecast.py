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
from trimtune.tune import batches, boundary, loop, precision
from trimtune.tune.optimizer import Masters
from trimtune.tune.precision import working_precision
from trimtune.tune.trainable import trained

_STEPS = 3


def of(method: Use, study: Study, base: Artifact, rows: Artifact, store: Store) -> dict[str, Any]:
    """Minutes of one fit (`fit_minutes`), of the search and seeds at most (`minutes`), and `memory_mb` of a fit; or `cause`.

    What a method's frozen part gives is computed once for all its fits, and counts in the first; the epochs of a head on
    stored features are negligible.
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
    once = probe.facts["features_seconds"] / 60 if on_features or probe.facts["on_states"] else 0.0
    epochs = 0.0 if on_features else probe.facts["epoch_seconds"] * study.fit.epochs / 60
    search = min(once + study.budget.trials * epochs, max(study.budget.minutes, once + epochs))
    seeds = (study.budget.seeds - 1) * epochs
    return {"fit_minutes": once + epochs, "minutes": search + seeds, "memory_mb": probe.facts["memory_mb"],
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
    below_seconds = 0.0
    top_layers = settings.top_layers(settings.Config(**config)) if hasattr(settings, "top_layers") else None
    if top_layers is not None:
        feed, below_seconds = boundary.sampled(model, top_layers, feed, chosen)
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
            "features_seconds": (1 + share) * (below_seconds or forward_seconds) * tokens / positions,
            "on_states": below_seconds > 0,
            "memory_mb": peak_memory_mb()}
