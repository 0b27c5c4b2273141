"""What the engines that run a graph share: the module to trace, the check against PyTorch, timing, and `engine.json`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.errors import StepFailed
from trimtune.tasks import text_classification as task

if TYPE_CHECKING:
    import numpy as np
    import torch

    Inputs = dict[str, np.ndarray]
    Run = Callable[[Inputs], np.ndarray]

NOTES = "engine.json"
_GAIN = 1.3
"""another format must be this much faster before it is taken: timing noise must not decide what ships"""


def not_installed(packages: Sequence[str], extra: str) -> str | None:
    """Which of the packages are absent, and the extra that brings them; None if all are there."""
    lacking = [name for name in packages if importlib.util.find_spec(name) is None]
    return f"{', '.join(lacking)} not installed: pip install 'trimtune[{extra}]'" if lacking else None


def versions(packages: Sequence[str]) -> dict[str, str | None]:
    """The version of each package, which is named as it is imported; None where it is absent."""
    return {name: _version(name) for name in packages}


@cache
def _version(package: str) -> str | None:
    """Of what it was installed as: `llama_cpp` is of `llama-cpp-python`."""
    installed = _distributions().get(package, [package])[0]
    try:
        return importlib.metadata.version(installed)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def note(folder: Path, **facts: Any) -> dict[str, Any]:
    """Write the facts into the runnable folder, so that it runs the same wherever it is moved; hands them back."""
    (folder / NOTES).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def noted(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / NOTES).read_text(encoding="utf-8"))
    return found


def write_around(folder: Path, source: Path, config: Any) -> None:
    """Write the tokenizer's files and the model's config (labels, padding token) beside a graph."""
    config.save_pretrained(folder)
    task.load_tokenizer(source).save_pretrained(folder)


def logits_only(model: torch.nn.Module) -> torch.nn.Module:
    """`forward(input_ids [B, T], attention_mask [B, T]) -> logits [B, C]`, float32: what engines trace, compile or call."""
    import torch

    class LogitsOnly(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            logits_BC: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
            return logits_BC.float()

    return LogitsOnly().eval()


def rows(batch: int, tokens: int, vocabulary: int, padded: bool = False) -> Inputs:
    """Seeded token ids, int64 [B, T]; with `padded`, row b has only its first tokens, at least one, and row 0 all."""
    import numpy as np

    draw = np.random.default_rng(batch * 1000 + tokens)
    mask = np.ones((batch, tokens), dtype=np.int64)
    if padded:
        lengths = draw.integers(1, tokens + 1, size=batch)
        lengths[0] = tokens
        mask = (np.arange(tokens) < lengths[:, None]).astype(np.int64)
    return {"input_ids": draw.integers(0, vocabulary, size=(batch, tokens), dtype=np.int64), "attention_mask": mask}


def shapes(vocabulary: int, max_length: int) -> Iterator[Inputs]:
    """Batches and lengths unlike the traced one, with padding and without."""
    for batch, tokens, padded in ((1, 3, False), (1, max_length, False), (3, 17, True), (9, min(40, max_length), True)):
        yield rows(batch, min(tokens, max_length), vocabulary, padded)


def check(run: Run, model: Any, max_length: int, tolerance: float, engine: str) -> float:
    """The largest |Δlogit| between the exported graph and PyTorch in float32 over several shapes and paddings.

    Raises:
        StepFailed: beyond the tolerance. An export that answers differently must not be measured.
    """
    import numpy as np
    import torch

    worst = 0.0
    for inputs in shapes(model.config.vocab_size, max_length):
        with torch.inference_mode():
            expected_BC = model(**{name: torch.from_numpy(values) for name, values in inputs.items()}).logits.numpy()
        worst = float(np.maximum(worst, np.abs(run(inputs) - expected_BC).max()))  # unlike max(), it keeps a NaN
    if not worst <= tolerance:
        raise StepFailed(f"{engine}: the exported graph answers differently from PyTorch: "
                         f"|Δlogit| {worst:.2g}, allowed {tolerance:g}")
    return worst


def passing(runs: Mapping[str, Run], model: Any, max_length: int, tolerance: Mapping[str, float],
            engine: str) -> tuple[dict[str, float], dict[str, str]]:
    """The |Δlogit| of each number format's run, and why others are left out: they answer too differently.

    Raises:
        StepFailed: the first format does, which is the one that was asked for, or float32.
    """
    differences: dict[str, float] = {}
    left_out: dict[str, str] = {}
    for name, run in runs.items():
        try:
            differences[name] = check(run, model, max_length, tolerance[name], f"{engine} in {name}")
        except StepFailed as failure:
            if not differences:
                raise
            left_out[name] = failure.cause
    return differences, left_out


def fastest(runs: Mapping[str, Run], vocabulary: int, max_length: int) -> tuple[str, dict[str, list[float]]]:
    """Time real forwards of 1 and 32 rows of 32 tokens, taking turns.

    Returns:
        as `quickest`, milliseconds [batch 1, batch 32].
    """
    inputs = [rows(batch, min(32, max_length), vocabulary) for batch in (1, 32)]
    return quickest({name: [partial(run, one) for one in inputs] for name, run in runs.items()}, (12, 4))


def quickest(calls: Mapping[str, Sequence[Callable[[], object]]], rounds: Sequence[int]) -> tuple[str, dict[str, list[float]]]:
    """Time the calls of each name, taking turns; call i so many times as `rounds[i]` says, the first of which warms up.

    Returns:
        the fastest by the geometric mean of its calls (the first named, unless another is 1.3 times as fast), and the best
        milliseconds of each call of each name.
    """
    best = {name: [math.inf] * len(rounds) for name in calls}
    for at, turns in enumerate(rounds):
        for turn in range(turns):
            for name in calls:
                started = time.perf_counter()
                calls[name][at]()
                taken = (time.perf_counter() - started) * 1000
                if turn:
                    best[name][at] = min(best[name][at], taken)
    mean = {name: math.prod(values) ** (1 / len(rounds)) for name, values in best.items()}
    default, winner = next(iter(calls)), min(mean, key=mean.__getitem__)
    chosen = winner if mean[default] > _GAIN * mean[winner] else default
    return chosen, {name: [round(value, 2) for value in values] for name, values in best.items()}
