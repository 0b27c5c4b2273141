"""What a method's fits will take, forecast by timing a few of its real steps in a process of their own.

A step takes a + b · (rows × width) seconds: a for its thousands of small operations, b for its products. Both come from batches
of unlike widths, by least squares, and give the seconds of every batch of an epoch; likewise without gradients for the
validation rows. What a fit costs beside its steps (its process, loading, saving) is timed too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.errors import StepFailed
from trimtune.process import peak_memory_mb, place
from trimtune.records import Artifact, Study, Use
from trimtune.store import Store
from trimtune.tasks._base import reading_of
from trimtune.tune import batches, boundary, device, feeds, fitting, heap, memory, precision, trainable
from trimtune.tune.attention import working_attention
from trimtune.tune.parallel import ALONE
from trimtune.tune.precision import working_precision
from trimtune.tune.search import at_most

_STEPS = 6
"""batches that are timed, spread over the widths"""
GROWTH = 1.25
"""how a fit's peak of memory grows beyond theirs while it meets all widths (each leaves its kernels behind): 1.20 to 1.30,
measured for the default methods on helpdesk"""


def of(method: Use, study: Study, base: Artifact, rows: Artifact, store: Store) -> dict[str, Any]:
    """Minutes of one fit (`fit_minutes`), of the search and seeds at most (`minutes`), and `memory_mb` of a fit; or `cause`.

    What a method's frozen part gives is computed once for all its fits, and counts in the first; the epochs of a head on
    stored features are negligible.
    """
    code = parts.source_hash("method", method.name) + parts.source_hash("task", study.task)
    try:
        chosen = working_precision(study, store)
        shared = dict(task=study.task, method=method.name, config=method.config, batch_size=study.fit.batch_size,
                      max_length=study.fit.max_length, precision_=chosen,
                      attention_=working_attention(study, chosen, base, rows, store), model_name=study.model,
                      packing_=study.fit.packing, reading=reading_of(study, rows))
        probe = store.step("forecast", method.name, time_steps, {**shared, "base": base.folder, "rows": rows.folder},
                           config={**shared, **place()}, parents=(base, rows), code=code)
    except StepFailed as failure:
        return {"cause": failure.cause}
    on_features = getattr(parts.load("method", method.name), "ON_FEATURES", False)
    beside = (probe.facts["beside_seconds"] + probe.start_seconds) / 60
    once = probe.facts["features_seconds"] / 60 + beside if on_features or probe.facts["on_states"] else 0.0
    epoch = 0.0 if on_features else probe.facts["epoch_seconds"] / 60
    fit, (trials, epochs) = beside + epoch * study.fit.epochs, at_most(study.budget.trials, study.fit.epochs)
    search = min(once + trials * beside + epochs * epoch, max(study.budget.minutes, once + fit))
    seeds = (study.budget.seeds - 1) * fit
    return {"fit_minutes": once + fit, "minutes": search + seeds, "memory_mb": probe.facts["memory_mb"],
            "rows_at_once": probe.facts["rows_at_once"] or study.fit.batch_size,
            "tokens_per_epoch": probe.facts["tokens"]}


def time_steps(folder: Path, *, base: Path, rows: Path, task: str, method: str, config: dict[str, Any], batch_size: int,
               max_length: int, precision_: str, attention_: str, model_name: str, packing_: str,
               reading: dict[str, Any]) -> dict[str, Any]:
    """Seconds of one epoch (with its validation), of one pass without gradients, and of what a fit does beside its steps."""
    import torch

    started = time.perf_counter()
    heap.prepare()
    part, settings = parts.load("task", task), parts.load("method", method)
    model = fitting.prepared(part, settings, settings.Config(**config), base, seed=0, attention=attention_)
    feed, validation = feeds.token_feeds(model, part, base, part.rows.load(rows), max_length, reading, packing_, batch_size)
    learning = trainable.Learning(model, feed.tokens | validation.tokens, precision.dtype(precision_))
    place_ = device.of(model)
    on_features = getattr(settings, "ON_FEATURES", False)
    at_once = 0 if on_features else fitting.rows_at_once(model, batch_size, feed, validation, precision_)
    masters = learning.masters(1e-6, 1000)
    plan = sorted(batches.order(feed.lengths, batch_size, 0, 0), key=lambda batch: max(feed.lengths[row] for row in batch))
    chosen = sorted({len(plan) * at // _STEPS for at in range(_STEPS)} | {len(plan) - 1})
    beside, below_seconds, timed = time.perf_counter() - started, 0.0, [plan[at] for at in chosen]
    top_layers = settings.top_layers(settings.Config(**config)) if hasattr(settings, "top_layers") else None
    if top_layers is not None:
        feed, below_seconds = boundary.sampled(model, top_layers, feed, timed)

    def step(batch: Sequence[int]) -> None:
        rows = 0 if below_seconds else at_once  # stored states are those of whole batches
        for piece, weight in ALONE.pieces(batch, rows, feed.counts):
            (part.loss(*feed.answered(piece)) * weight).backward()
        masters.step()
        device.wait(place_)

    def answer(batch: Sequence[int]) -> None:
        with torch.inference_mode():
            for piece, _ in ALONE.pieces(batch, 0 if below_seconds else at_once):
                part.score(*feed.answered(piece))
        device.wait(place_)

    sizes = [feed.positions(batch) for batch in timed]
    model.train()
    took, fresh_train = _seconds(step, timed)
    train = _line(sizes, took)
    model.eval()
    took, fresh_forward = _seconds(answer, timed)
    forward = _line(sizes, took)
    started = time.perf_counter()
    values = learning.values(masters.snapshot(), masters.decay(masters.step_count))
    trainable.save(folder, base, model, values, dict(zip(values, learning.originals, strict=True)), part, model_name)
    beside += time.perf_counter() - started
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    asked = list(batches.by_length(validation.lengths, memory.rows_answered(at_once, batch_size)))
    validated = sum(forward(validation.positions(batch)) for batch in asked)
    passed = sum(forward(feed.positions(batch)) for batch in plan)
    below = below_seconds / sum(forward(size) for size in sizes) if top_layers is not None else 1.0
    features = below * (validated + passed)
    if on_features:  # the features' step alone meets the widths
        features += fresh_forward * (_widths(feed.lengths, plan) + _widths(validation.lengths, asked))
    else:
        beside += fresh_train * _widths(feed.lengths, plan) + fresh_forward * _widths(validation.lengths, asked)
    memory_mb = peak_memory_mb() * (1.0 if on_features else GROWTH)
    return {"epoch_seconds": validated + sum(train(feed.positions(batch)) for batch in plan),
            "features_seconds": features, "beside_seconds": beside, "on_states": below_seconds > 0,
            "tokens": sum(feed.lengths), "rows_at_once": at_once, "memory_mb": memory_mb}


def _seconds(work: Callable[[Sequence[int]], None], timed: Sequence[Sequence[int]]) -> tuple[list[float], float]:
    """Of each batch the median of three turns, and what a width costs more when it is met first (its kernels are built)."""
    turns: list[list[float]] = []
    for _turn in range(4):
        turns.append([])
        for batch in timed:
            started = time.perf_counter()
            work(batch)
            turns[-1].append(time.perf_counter() - started)
    again = [statistics.median(each) for each in zip(*turns[1:], strict=True)]
    fresh = [first - later for first, later in zip(turns[0][1:], again[1:], strict=True)]  # the very first pays for more
    return again, max(0.0, statistics.median(fresh or [0.0]))


def _line(sizes: Sequence[int], seconds: Sequence[float]) -> Callable[[int], float]:
    """Seconds as a + b · size by least squares; in proportion to the size where the sizes are equal or a or b is negative."""
    import numpy

    slope, intercept = numpy.polyfit(sizes, seconds, 1) if len(set(sizes)) > 1 else (0.0, 0.0)
    if slope <= 0 or intercept < 0:
        slope, intercept = sum(seconds) / sum(sizes), 0.0
    return lambda size: float(intercept + slope * size)


def _widths(lengths: Sequence[int], batches_: Sequence[Sequence[int]]) -> int:
    return len({max(lengths[row] for row in batch) for batch in batches_})
