"""How many threads answer one row soonest: swept where a candidate is exported, noted in `engine.json`, used wherever it runs.

    counts 1 … n: n is what the process may use; from 4 on each is about half as many again as the one before

One count per candidate, and the time of a single row decides: what a user waits for. A batch may like more threads, and then
gets fewer than it could use. All cores stand, unless fewer are clearly faster, since a count that follows from the noise of a
moment would make two candidates of one. Each lower count is timed in turns with the one that stands:

    r_k = t_fewer / t_standing of round k        fewer are taken where  1.1 · r_k < 1  in three of four rounds

Nor are fewer taken where other processes had much of the cores in each of three tries: beside them one thread often is the best.

Tokenizing runs on one thread whatever the count, and is left out. Where it costs much, latency gains less than these times say.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import numpy as np

from trimtune import outside_load, parts
from trimtune.engines import _graph
from trimtune.study import language

CLEARLY, SHARE = 1.1, 0.75
"""how many times as fast fewer threads must be, and in what share of the rounds"""
_HOPELESS = 1.5
"""where fewer take so many times as long, still fewer are not tried"""
_ROUNDS, _SECONDS = (6, 20), 1.0
"""of a pair: rounds at least and at most, and the seconds after which no further one begins"""
_TRIES = 3
_TEXTS, _PROMPT, _STEPS = 6, 32, 16
"""rows of a round; of a language model tokens of the prompt, and after it"""
Work = Callable[[], object]


def noted(folder: Path, engine: str, task: str, texts: Sequence[str], max_length: int, cores: int) -> dict[str, Any]:
    """Add to the folder's notes, and hand back: `threads`, the count to load it with, and `threads_ms`, each count's milliseconds
    for a row (of a language model a prompt of 32 tokens and 16 after it). Nothing with one core, nor of an engine that says
    `SWEPT = False`.

    Args:
        texts: rows of the training split, of which six are timed; none of a language model.
    """
    part = parts.load("engine", engine)
    if cores == 1 or not getattr(part, "SWEPT", True):
        return {}
    module = parts.load("task", task)
    asked = [_decoded] if module.rows is language else _answers(module, folder, texts, max_length)
    outside = outside_load.Meter()
    for _ in range(_TRIES):
        best, took = sweep(_opener(part, folder, asked), cores)
        if not outside.disturbed():
            break
    else:
        best = cores
    found = {"threads": best, "threads_ms": {str(count): round(took[count] / len(asked), 3) for count in sorted(took)}}
    _graph.note(folder, **{"engine": engine, "task": task, **_notes(folder), **found})
    return found


def load(engine: str, folder: Path, cores: int) -> Any:
    """What the engine loads, with as many threads as the folder's notes say, where there are so many cores; else with all."""
    return parts.load("engine", engine).load(folder, used(folder, cores))


def used(folder: Path, cores: int) -> int:
    """Threads to load a runnable folder with."""
    return min(int(_notes(folder).get("threads", cores)), cores)


def counts(cores: int) -> list[int]:
    """The counts that are tried, ascending; the last one is `cores`."""
    ladder = [1, 2, 3, 4, *(step << power for power in range(1, 16) for step in (3, 4))]
    return [count for count in ladder if count < cores] + [cores]


def sweep(opened: Callable[[int], Work], cores: int) -> tuple[int, dict[int, float]]:
    """The count that is kept, and the milliseconds of each that was tried. Two are open at a time at most.

    Args:
        opened: count → what is timed with so many threads; its first call warms up.
    """
    best, standing, took = cores, opened(cores), dict[int, float]()
    for count in reversed(counts(cores)[:-1]):
        trying = opened(count)
        rounds = in_turns({best: standing, count: trying})
        took |= {each: 1000 * median(seconds) for each, seconds in rounds.items()}
        ratios = [fewer / stands for fewer, stands in zip(rounds[count], rounds[best], strict=True)]
        if clearly_faster(ratios):
            best, standing = count, trying
        elif median(ratios) > _HOPELESS:
            break
    return best, took


def clearly_faster(ratios: Sequence[float]) -> bool:
    """Whether fewer threads are taken, by their time over that of what stands, round by round."""
    return sum(CLEARLY * ratio < 1 for ratio in ratios) >= SHARE * len(ratios)


def in_turns(works: Mapping[int, Work]) -> dict[int, list[float]]:
    """Seconds of each round of each, after one call of each that is not counted. Who begins changes from round to round."""
    taken: dict[int, list[float]] = {count: [] for count in works}
    for work in works.values():
        work()
    began, order = time.perf_counter(), list(works)
    for turn in range(_ROUNDS[1]):
        if turn >= _ROUNDS[0] and time.perf_counter() - began > _SECONDS:
            break
        for count in order:
            started = time.perf_counter()
            works[count]()
            taken[count].append(time.perf_counter() - started)
        order.reverse()
    return taken


def _opener(part: ModuleType, folder: Path, asked: Sequence[Callable[[Any], object]]) -> Callable[[int], Work]:
    """An engine whose threads are the process's has `set_threads` and is loaded once; others are loaded for each count."""
    set_threads = getattr(part, "set_threads", None)
    shared = part.load(folder, 1) if set_threads else None

    def opened(count: int) -> Work:
        run = shared if set_threads else part.load(folder, count)

        def work() -> None:
            if set_threads:
                set_threads(count)
            for ask in asked:
                ask(run)

        return work

    return opened


def _answers(task: ModuleType, folder: Path, texts: Sequence[str], max_length: int) -> list[Callable[[Any], object]]:
    tokenizer = task.load_tokenizer(folder)
    inputs = [task.encode(tokenizer, [text], max_length) for text in texts[::max(1, len(texts) // _TEXTS)][:_TEXTS]]
    return [partial(_answered, one) for one in inputs]


def _answered(inputs: Any, run: Any) -> None:
    run(inputs)


def _decoded(decoder: Any) -> None:
    ids_1T = np.ones((1, min(_PROMPT, max(1, decoder.context - _STEPS))), dtype=np.int64)
    decoder.begin(ids_1T, np.ones_like(ids_1T))
    for _ in range(min(_STEPS, decoder.context - ids_1T.shape[1])):
        decoder.step(ids_1T[:, 0])


def _notes(folder: Path) -> dict[str, Any]:
    """Of an engine that writes none, nothing."""
    return _graph.noted(folder) if (folder / _graph.NOTES).is_file() else {}
