"""The fits of one method, as steps of the store."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.records import Artifact, Study, Use
from trimtune.store import Store
from trimtune.tasks._base import reading_of
from trimtune.tune import features, fitting
from trimtune.tune.attention import working_attention
from trimtune.tune.precision import working_precision


class Fits:
    """The fits of one method, with all but learning rate, seed and pause filled in.

    `processes` is how many torchrun started; sums in another order give other last digits, so it is in the key.
    """

    def __init__(self, method: Use, study: Study, base: Artifact, rows: Artifact, store: Store, processes: int = 1) -> None:
        chosen = working_precision(study, store)
        shared: dict[str, Any] = dict(task=study.task, batch_size=study.fit.batch_size, max_length=study.fit.max_length,
                                      precision_=chosen)
        code = parts.source_hash("method", method.name) + parts.source_hash("task", study.task)
        reading = reading_of(study, rows)
        self.config = {**shared, "attention_": working_attention(study, chosen, base, rows, store), "model_name": study.model,
                       "method": method.name, "config": method.config, "epochs": study.fit.epochs,
                       "class_weights": study.fit.class_weights, "packing_": study.fit.packing,
                       "patience": study.fit.patience, "reading": reading,
                       **({"processes": processes} if processes > 1 else {})}
        self.parents: tuple[Artifact, ...] = (base, rows)
        self.files = {"base": base.folder, "rows": rows.folder}
        made = features.kept(method, study.task, shared, reading, base, rows, store, code)
        if made:
            self.parents, self.files = (*self.parents, made), {**self.files, "features_": made.folder}
        self.method, self.store, self.code = method.name, store, code

    def __call__(self, rate: float, seed: int, until: int = 0) -> Artifact:
        """The tuned artifact; with `until`, one without a model, of a fit that paused after that epoch.

        The pause is part of the whole fit: its seconds, and its state if that is still there.
        """
        config = {**self.config, "learning_rate": rate}
        arguments = {**config, **self.files, "seed": seed}
        about = f"at learning rate {rate:.2g}, seed {seed}" + (f", to epoch {until}" if until else "")
        if until:
            arguments |= {"until": until, "rests": self._rests(rate, seed)}
            config |= {"until": until}
        return self.store.step("tune", self.method, fitting.fit, arguments, config=config, parents=self.parents, seed=seed,
                               code=self.code, about=about)

    def forget(self, rate: float, seed: int) -> None:
        """Remove the state of a fit that paused and won't go on."""
        shutil.rmtree(self._rests(rate, seed), ignore_errors=True)

    def _rests(self, rate: float, seed: int) -> Path:
        return self.store.rests("tune", self.method, config={**self.config, "learning_rate": rate}, parents=self.parents,
                                seed=seed, code=self.code)
