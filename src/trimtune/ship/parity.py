"""The parity gate of classifiers: what ships must answer as what was measured, hop by hop, on the user's own rows.

    tuned → merged        max |Δlogit| ≤ 1e-3                      the adapter folded into the weights changes nothing
    tuned → plain peft    max |Δlogit| ≤ 1e-3                      the adapter folder on the base model, without trimtune
    model → engine        max |Δlogit| ≤ the engine's tolerance, and the same label on ≥ 99% of the clear rows
    the same, padded      the same of 32 rows far apart in length, other rows' tokens behind the mask
    measured → bundle     max |Δprobability| ≤ 1e-4, and the labels that were measured, from the bundle's final files
                          (all of them in float32, ≥ 99% where the engine's numerics round: bf16, int8)

Where an engine's numerics change answers on purpose (int8), the difference is recorded and not judged; the same label on
< 90% of the clear rows, or a difference like that of unrelated answers, is then called broken. Everything heavy runs in a
fresh process; a hop that fails stops the shipping.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from trimtune import parts
from trimtune.engines import _threads
from trimtune.errors import StepFailed
from trimtune.process import Watch, Worker, threads
from trimtune.records import Record
from trimtune.ship.predictor import logits_of, softmax

if TYPE_CHECKING:
    import numpy as np

MERGE_TOLERANCE = 1e-3
SHIPPED_TOLERANCE = 1e-4
AGREEMENT = 0.99
CHANGED_AGREEMENT = 0.9
BALANCE = 0.1
"""of the logits' usual range: rows whose best two are nearer are in the balance"""
BROKEN = 0.5
"""of the logits' own spread: an unjudged difference as large as that is no rounding (unrelated answers have 1.4)"""
MAX_ROWS = 1000
"""validation rows that the gate looks at: 1,000 evenly spaced ones settle it, and hundreds of thousands would take hours"""


class Hop(Record):
    """One hop of the gate. A difference that is not judged has no `allowed_difference`."""

    name: str
    rows: int
    unit: Literal["logit", "probability"] = "logit"
    max_difference: float
    """over rows and labels"""
    allowed_difference: float | None
    agreement: float
    """share of rows with the same label"""
    allowed_agreement: float
    clear_rows: int = 0
    """rows whose label isn't in the balance"""
    clear_agreement: float = 0.0
    """share of these with the same label: what is judged"""
    passed: bool
    note: str = ""

    def __str__(self) -> str:
        limit = "not judged" if self.allowed_difference is None else f"allowed {self.allowed_difference:.1g}"
        return (f"{self.name}: max |Δ{self.unit}| {self.max_difference:.2g} ({limit}), same label on {self.agreement:.2%} "
                f"of {self.rows} rows, on {self.clear_agreement:.2%} of the {self.clear_rows} clear ones (at least "
                f"{self.allowed_agreement:.0%})" + (f"; {self.note}" if self.note else ""))


class Judged(Protocol):
    """A hop of any task: its name and figures as text, and whether they are allowed."""

    @property
    def passed(self) -> bool: ...


class ParityFailed(StepFailed):
    """Shipping was refused: the answers changed on the way. Nothing was written."""

    def __init__(self, hop: Judged) -> None:
        super().__init__(f"The parity gate refused to ship. {hop}. Nothing was written.\n"
                         "What ships must answer as what was measured.\nShip another candidate with --candidate NAME.")
        self.hop = hop


def compare(name: str, before_NC: np.ndarray, after_NC: np.ndarray, allowed_difference: float | None,
            allowed_agreement: float, note: str = "") -> Hop:
    """Two sets of logits [N, C] of the same rows.

    Labels are judged on the clear rows, where the first set's best two lie more than a tenth of the logits' usual range
    apart: a row in the balance may fall to either side by rounding. One clear row may always differ, since few rows make
    coarse shares.
    """
    import numpy as np

    if before_NC.shape != after_NC.shape:
        return Hop(name=name, rows=len(before_NC), max_difference=math.inf, allowed_difference=allowed_difference, agreement=0.0,
                   allowed_agreement=allowed_agreement, passed=False, note=f"shapes {before_NC.shape} and {after_NC.shape}")
    difference = float(np.abs(before_NC.astype(np.float64) - after_NC).max())
    differs_N = before_NC.argmax(-1) != after_NC.argmax(-1)
    sorted_NC = np.sort(before_NC, axis=-1)
    clear_N = sorted_NC[:, -1] - sorted_NC[:, -2] > BALANCE * (sorted_NC[:, -1] - sorted_NC[:, 0]).mean()
    clear, flips = int(clear_N.sum()), int((differs_N & clear_N).sum())
    with np.errstate(invalid="ignore"):  # infinities fail below
        rounding = _spread(after_NC - before_NC) <= BROKEN * _spread(before_NC)
    near = rounding if allowed_difference is None else difference <= allowed_difference
    close = math.isfinite(difference) and near
    return Hop(name=name, rows=len(before_NC), max_difference=difference, allowed_difference=allowed_difference,
               agreement=1 - float(differs_N.mean()), allowed_agreement=allowed_agreement, clear_rows=clear,
               clear_agreement=1 - flips / max(clear, 1), note=note,
               passed=close and (flips <= 1 or 1 - flips / clear >= allowed_agreement - 1e-9))


def _spread(logits_NC: np.ndarray) -> float:
    """Root mean square about each row's mean: a shift of a whole row changes no answer."""
    import numpy as np

    return float(np.sqrt(((logits_NC - logits_NC.mean(axis=-1, keepdims=True)) ** 2).mean()))


def compare_shipped(measured_NC: np.ndarray, shipped_NC: np.ndarray, labels_M: Sequence[int], shipped_MC: np.ndarray,
                    allowed_agreement: float) -> Hop:
    """The last hop: logits of validation rows by the measured artifact and by the bundle; and, of the M test rows, the labels
    that were measured against those of the bundle. A label may differ where the bundle's two best are a hair apart.
    """
    import numpy as np

    same_shape = measured_NC.shape == shipped_NC.shape
    difference = float(np.abs(softmax(measured_NC) - softmax(shipped_NC)).max()) if same_shape else math.inf
    best_MC = np.sort(softmax(shipped_MC), axis=-1)
    differs_M = shipped_MC.argmax(-1) != np.asarray(labels_M)
    clear_M = differs_M & (best_MC[:, -1] - best_MC[:, -2] > SHIPPED_TOLERANCE)
    ties = int(differs_M.sum() - clear_M.sum())
    agreement = 1 - float(clear_M.sum()) / max(len(labels_M) - ties, 1)
    return Hop(name="measured → bundle", rows=len(labels_M), unit="probability", max_difference=difference,
               allowed_difference=SHIPPED_TOLERANCE, agreement=1 - float(differs_M.mean()), allowed_agreement=allowed_agreement,
               clear_rows=len(labels_M) - ties, clear_agreement=agreement,
               passed=difference <= SHIPPED_TOLERANCE and agreement >= allowed_agreement)


def told(hop: Judged, watch: Watch) -> Any:
    """The hop itself, once its figures were told to whoever watches.

    Raises:
        ParityFailed: it failed, with its name and figures.
    """
    watch({"kind": "note" if hop.passed else "warning", "text": f"parity {hop}"})
    if not hop.passed:
        raise ParityFailed(hop)
    return hop


def asked(hop: str, worker: Worker, *call: Any, **arguments: Any) -> Any:
    """A call in the worker; what can't even be loaded or run is a hop that failed."""
    try:
        return worker.call(*call, **arguments)
    except StepFailed as failure:
        raise StepFailed(f"The parity gate refused to ship. {hop}: {failure.cause}. Nothing was written.",
                         failure.detail) from None


def evenly(rows: Sequence[Any], most: int = MAX_ROWS) -> list[Any]:
    """At most `most` of the rows, evenly spaced."""
    step = max(1, math.ceil(len(rows) / most))
    return list(rows[::step])


def tolerance(engine: str, numerics: str, precision: str) -> tuple[float | None, float]:
    """Allowed max |Δlogit| and agreement of an engine: judged where it promises equality for what it runs."""
    difference = promised(engine, numerics, precision)
    return difference, AGREEMENT if difference is not None or numerics == "plain" else CHANGED_AGREEMENT


def promised(engine: str, numerics: str, precision: str) -> float | None:
    """The |Δlogit| that an engine promises for what it runs; None: answers change on purpose."""
    promises: dict[str, float] = parts.load("engine", engine).TOLERANCE
    kinds = (precision, numerics) if numerics == "plain" else (numerics, precision)
    return next((promises[kind] for kind in kinds if kind in promises), None)


def model_logits(folder: Path, task: str, texts: list[str], max_length: int, merge: bool) -> np.ndarray:
    """Logits [N, C] of a model folder in PyTorch, float32: the reference."""
    module = parts.load("task", task)
    return _torch_logits(module.load_model(folder, merge=merge), module, module.load_tokenizer(folder), texts, max_length)


def plain_peft_logits(base: Path, adapter: Path, task: str, labels: int, texts: list[str], max_length: int,
                      tokenizer: Path | None = None) -> np.ndarray:
    """Logits [N, C] of an adapter on the base model by peft and transformers alone, as somebody without trimtune has them.

    Args:
        tokenizer: the folder of its files; None takes the base's.
    """
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    module = parts.load("task", task)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels, dtype="float32", use_safetensors=True)
    model = PeftModel.from_pretrained(model, str(adapter)).eval()
    return _torch_logits(model, module, module.load_tokenizer(tokenizer or base), texts, max_length)


def plain_logits(folder: Path, task: str, texts: list[str], max_length: int) -> np.ndarray:
    """Logits [N, C] of a folder by transformers alone."""
    from transformers import AutoModelForSequenceClassification

    module = parts.load("task", task)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32", use_safetensors=True).eval()
    return _torch_logits(model, module, module.load_tokenizer(folder), texts, max_length)


def engine_logits(folder: Path, engine: str, task: str, texts: list[str], max_length: int) -> np.ndarray:
    """Logits [N, C] of a runnable folder by its engine."""
    module = parts.load("task", task)
    run = _threads.load(engine, folder, threads())
    return logits_of(run, partial(module.encode, module.load_tokenizer(folder), max_length=max_length), texts)


def _torch_logits(model: Any, task: Any, tokenizer: Any, texts: list[str], max_length: int) -> np.ndarray:
    import torch

    def run(batch: dict[str, np.ndarray]) -> np.ndarray:
        found: np.ndarray = model(**{name: torch.from_numpy(ids_BT) for name, ids_BT in batch.items()}).logits.float().numpy()
        return found

    with torch.inference_mode():
        return logits_of(run, partial(task.encode, tokenizer, max_length=max_length), texts)
