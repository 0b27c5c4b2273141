"""By what candidates of a task are compared on the same test rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtune.choose.compare import Compared, answers
from trimtune.choose.likelihood import likelihoods


def comparison(predictions: Mapping[str, Sequence[Any]], truth: Sequence[int], names: Sequence[str], metric: str) -> Compared:
    """All pairs of `names`: by their answers, or by the likelihood of the test prompts' rows where `metric` is `perplexity`.

    Raises:
        TrimtuneError: predictions and test rows don't match.
    """
    return likelihoods(predictions, names) if metric == "perplexity" else answers(predictions, truth, names)
