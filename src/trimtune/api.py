"""The command line's words as functions. Progress goes to `watch`, a function that takes event dictionaries."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.errors import TrimtuneError
from trimtune.process import Watch
from trimtune.records import Study
from trimtune.results import Result

if TYPE_CHECKING:
    from trimtune.ship.generator import Generator
    from trimtune.ship.predictor import Predictor


def study_of(given: Study | str | Path | dict[str, Any]) -> Study:
    """A study from its file, from a mapping with the same keys, or as it is."""
    from trimtune.study import read

    if isinstance(given, Study):
        return given
    if isinstance(given, dict):
        return read.resolve(given, "study", Path.cwd())
    return read.read(Path(given).expanduser())


def run(study: Study | str | Path | dict[str, Any], *, runs: str | Path = "runs", watch: Watch | None = None) -> Result:
    """Tune, trim, export, measure, choose and report; continues what an earlier run of the study left.

    Args:
        study: a study file, or a mapping with the same keys (paths relative to the current folder).
        runs: the folder of all runs; this one's is `runs/<study name>/`.

    Raises:
        TrimtuneError: the study or its data can't be used. A candidate that fails is a row of the result.

    >>> result = trimtune.run("study.yaml")              # doctest: +SKIP
    >>> result.choice.sentence, result.readings.to_pandas()   # doctest: +SKIP
    """
    from trimtune import flow

    return flow.run(study_of(study), Path(runs).expanduser(), watch)


def tune(train: str | Path, *, out: str | Path, model: str = "minilm", method: str = "lora", config: dict[str, Any] | None = None,
         learning_rate: float | None = None, epochs: int = 4, batch_size: int = 32, max_length: int = 128,
         precision: str = "auto", patience: int = 3, class_weights: str = "none", packing: str = "auto",
         seed: int = 0, validation: str | Path | None = None, test: str | Path | None = None, data: dict[str, Any] | None = None,
         task: str = "text-classification", watch: Watch | None = None) -> dict[str, Any]:
    """Fit one method once and save the model: no search, no trims.

    Args:
        train: a data file, a hub id, or a bundled set's name.
        out: the folder for the fitted model; what is in it is never overwritten.
        config: the method's own options, such as {"r": 16}; `trimtune explain lora` lists them.
        learning_rate: None takes the middle of the method's range.
        class_weights: `balanced` lets a rare class weigh more in the loss.
        packing: `on` or `off`: a language model's rows one behind another, or padded; `auto` packs where it saves a tenth.
        data: other keys of a study's `data`: columns, such as {"text": "body"}, or a chat `template`.
        patience: epochs without a better validation score after which it ends; 0: it runs them all.

    Returns:
        method, the test rows' accuracy (of a language model: perplexity), the same of the validation rows, rows_per_s,
        tokens_per_s, seconds, peak_memory_mb, learning_rate, epochs, out.
    """
    from trimtune import single
    from trimtune.study.document import Place
    from trimtune.study.uses import uses

    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise TrimtuneError(f"learning_rate: {learning_rate:g} was given.", "Allowed: a number above 0.",
                            "Leave it out to take the middle of the method's range.")
    use = uses("method", [{method: config} if config else method], task.replace("-", "_"), Place("method"))[0]
    return single.tune(str(train), model=model, method=use.name, config=use.config, learning_rate=learning_rate, epochs=epochs,
                       batch_size=batch_size, max_length=max_length, precision=precision, patience=patience,
                       class_weights=class_weights, packing=packing, seed=seed,
                       validation=str(validation) if validation else None, test=str(test) if test else None, data=data,
                       out=Path(out).expanduser(), task=task.replace("-", "_"), watch=watch)


def load(bundle: str | Path, n_threads: int | None = None) -> Predictor | Generator:
    """The predictor of a bundle, every file's hash checked: call it with a list of texts.

    Of a language model it is a generator: call it with a list of prompts, and it gives the answers' texts.
    """
    from trimtune.ship import bundle as bundles

    return bundles.load(bundle, n_threads)
