"""How many of the test rows are answered right: accuracy, macro-F1, the worst class, and whether confidence is worth its name.

The test split is read here and by nothing that decides earlier. Formulas, with y the truth and ŷ = argmax of the logits:
accuracy = mean(y = ŷ), Wilson's 95% interval; F1 of a class = 2·TP / (rows of it + answers of it), macro-F1 = mean over
the classes that occur, bootstrap over rows; worst class = the lowest share of right answers among a class's own rows,
Wilson's interval, its label in the note (it was chosen for being the lowest, so read it as a hint where to look).

calibration_error = Σ_m |B_m| / n · |acc(B_m) − conf(B_m)|, with conf the largest softmax probability: the expected calibration
error of Guo et al. 2017 (arXiv 1706.04599), section 2. Use it where somebody acts on the probability of an answer, such as by a
threshold below which people look. Its 15 bins hold equally many rows, not equal widths: a tuned classifier is nearly sure of most
rows, and one bin of equal width would average almost all of them. Refused below ten rows per bin. Confidences that are exactly
right don't read 0, since rows are few: the note says what they would read. The interval is ±1.96 bootstrap standard errors.

A limit may hold each against the candidate's parent, the same method and engine without trims: `require: {accuracy: ">= parent -
0.01"}` allows a loss of one point. With `surely` behind it the whole 95% interval of the paired difference must be inside
(accuracy alone has one): with few test rows equal answers are then not enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from trimtune.measure import _calibration
from trimtune.measure._intervals import wilson
from trimtune.measure._label_subject import LabelSubject, finite
from trimtune.records import Quantity, Reading

TASKS = ("text_classification",)
READINGS = {
    "accuracy": Quantity("fraction", "higher", "Accuracy", "Share of the test rows that were given the right label."),
    "macro_f1": Quantity("fraction", "higher", "Macro-F1",
                         "F1 score of each label, every label with the same weight; rare labels count as much as common ones."),
    "worst_class_accuracy": Quantity("fraction", "higher", "Worst class",
                                     "Accuracy on the label that the model gets wrong most often."),
    "calibration_error": Quantity("fraction", "lower", "Calibration error",
        "How far the confidence in answers is from the share that is right; few rows read high by chance.")}
ROUNDS = 1


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    batch_size: int = Field(32, ge=1, description="rows answered together")
    resamples: int = Field(500, ge=100, description="bootstrap resamples of macro-F1 and of calibration_error")
    seed: int = Field(0, description="of the bootstrap")


def sample(subject: LabelSubject, config: Config) -> dict[str, Any]:
    """The answers to every test row and their confidences, beside the truth."""
    found = answered(lambda texts: finite(subject.logits(texts), len(subject.classes)), subject.texts, config.batch_size)
    return {"predictions": found[0], "confidences": found[1], "truth": subject.labels, "classes": list(subject.classes)}


def predict(logits: Callable[[Sequence[str]], np.ndarray], texts: Sequence[str], batch_size: int) -> list[int]:
    """Label index of each text, in the order given."""
    return answered(logits, texts, batch_size)[0]


def answered(logits: Callable[[Sequence[str]], np.ndarray], texts: Sequence[str],
             batch_size: int) -> tuple[list[int], list[float]]:
    """Label index and largest softmax probability of each text, in the order given; rows of like length are answered together,
    since padding is waste."""
    found_N, confidence_N = np.empty(len(texts), dtype=np.int64), np.empty(len(texts))
    order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    for start in range(0, len(order), batch_size):
        rows = order[start:start + batch_size]
        logits_BC = logits([texts[row] for row in rows]).astype(np.float64)
        found_N[rows] = logits_BC.argmax(axis=1)
        confidence_N[rows] = 1 / np.exp(logits_BC - logits_BC.max(axis=1, keepdims=True)).sum(axis=1)
    return [int(index) for index in found_N], [round(float(each), 6) for each in confidence_N]


def summarize(samples: list[dict[str, Any]], config: Config) -> dict[str, Reading]:
    """Accuracy, macro-F1 and worst class accuracy, as fractions of 1; calibration_error of samples with confidences."""
    truth, predictions = np.asarray(samples[0]["truth"]), np.asarray(samples[0]["predictions"])
    classes, n, right = samples[0]["classes"], len(truth), truth == predictions
    low, high = f1_interval(truth, predictions, len(classes), config.resamples, config.seed)
    rows_C = np.bincount(truth, minlength=len(classes))
    hits_C = np.bincount(truth[right], minlength=len(classes))
    worst = int(np.argmin(np.where(rows_C > 0, hits_C / np.maximum(rows_C, 1), np.inf)))
    found = {"accuracy": _share("accuracy", int(right.sum()), n),
            "macro_f1": _reading("macro_f1", macro_f1(truth, predictions, len(classes)), n, low, high,
                                 "bootstrap over rows 95%"),
            "worst_class_accuracy": _share("worst_class_accuracy", int(hits_C[worst]), int(rows_C[worst]), classes[worst])}
    if "confidences" in samples[0]:  # a rule that needs no tuning has none
        found["calibration_error"] = _calibrated(np.asarray(samples[0]["confidences"]), right, config)
    return found


def _calibrated(confidence_N: np.ndarray, right_N: np.ndarray, config: Config) -> Reading:
    n, needed = len(right_N), _calibration.NEEDED
    if n < needed:
        unit, better, *_ = READINGS["calibration_error"]
        return Reading(name="calibration_error", value=None, unit=unit, better=better, n=n, note=f"too few rows, {n} of {needed}")
    found = _calibration.calibration(confidence_N, right_N, config.resamples, config.seed)
    return _reading("calibration_error", found.value, n, found.low, found.high, "bootstrap over rows 95%, by its standard error",
                    f"confidences that are exactly right would read {found.chance:.3f}, 95 of 100 times at most "
                    f"{found.chance_high:.3f}")


def by_row(samples: list[dict[str, Any]]) -> list[int]:
    """The label index that each test row was given, for comparing candidates row by row."""
    return list(samples[0]["predictions"])


def macro_f1(truth: np.ndarray, predictions: np.ndarray, classes: int) -> float:
    """Mean F1 over the classes that occur in truth or answers."""
    hits_C = np.bincount(truth[truth == predictions], minlength=classes)
    both_C = np.bincount(truth, minlength=classes) + np.bincount(predictions, minlength=classes)
    return float((2 * hits_C[both_C > 0] / both_C[both_C > 0]).mean())


def f1_interval(truth: np.ndarray, predictions: np.ndarray, classes: int, resamples: int, seed: int) -> tuple[float, float]:
    """95% interval of macro-F1: rows drawn with replacement."""
    rng = np.random.default_rng(seed)
    drawn = (rng.integers(len(truth), size=len(truth)) for _ in range(resamples))
    low, high = np.percentile([macro_f1(truth[rows], predictions[rows], classes) for rows in drawn], [2.5, 97.5])
    return float(low), float(high)


def _share(name: str, hits: int, n: int, note: str = "") -> Reading:
    low, high = wilson(hits, n)
    return _reading(name, hits / n, n, low, high, "Wilson 95%", note)


def _reading(name: str, value: float, n: int, low: float, high: float, interval: str, note: str = "") -> Reading:
    unit, better, *_ = READINGS[name]
    return Reading(name=name, value=value, unit=unit, better=better, n=n, low=low, high=high, interval=interval, note=note)
