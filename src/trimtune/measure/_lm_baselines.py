"""Baselines of language models: what they say, or foresee, of the prompts and rows that every candidate gets."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.engines._torch_decoder import TorchDecoder
from trimtune.measure import answers, perplexity
from trimtune.measure._candidate import Loaded
from trimtune.measure._lm_subject import subject_of
from trimtune.records import Reading
from trimtune.results import Baseline
from trimtune.study import language

_FILE = "samples.json"
Configs = Mapping[str, dict[str, Any]]
"""measure → what differs from its defaults"""


def run(folder: Path, *, baseline: str, base: Path, rows: Path, task: str, max_length: int, reading: dict[str, Any],
        configs: Configs) -> dict[str, Any]:
    """Work of the step: the samples of `perplexity` and `answers`, as a candidate's, in a file. Facts: `size_bytes`, `note`, and
    the `seconds` of the fit, if there was one."""
    started, part = time.perf_counter(), parts.load("task", task)
    rule = parts.load("baseline", baseline).speaker(language.load(rows).train, base)
    seconds = time.perf_counter() - started
    model = rule.model or base
    subject = subject_of(part, model, rows, max_length, reading, lambda: Loaded(TorchDecoder(part.load_model(model)), 0.0, False))
    config = answers.Config(**configs.get("answers", {}))
    if rule.answer:
        prompts, too_long = answers.drawn(subject, config)
        said = rule.answer([prompt.text for prompt in prompts])
        taken = {"answers": answers.as_sample(prompts, said, config, too_long)}
    else:
        taken = {"perplexity": perplexity.sample(subject, perplexity.Config(**configs.get("perplexity", {}))),
                 "answers": answers.sample(subject, config)}
    (folder / _FILE).write_text(json.dumps(taken), encoding="utf-8")
    return {"size_bytes": rule.size_bytes, "note": rule.note, "seconds": None if rule.model else seconds}


def scored(entry: Baseline, folder: Path, configs: Configs) -> Baseline:
    """The baseline with its readings and what it is compared by: likelihoods where it has them, its answers in any case."""
    taken: dict[str, dict[str, Any]] = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    found: dict[str, Reading] = {}
    for name, sample in taken.items():
        module = parts.load("measure", name)
        readings = module.summarize([sample], module.Config(**configs.get(name, {})))
        found |= {key: reading for key, reading in readings.items() if reading.value is not None}
    by_row = perplexity.by_row([taken["perplexity"]]) if "perplexity" in taken else []
    return entry.model_copy(update={"readings": found, "predictions": tuple(by_row),
                                    "by_answer": tuple(map(tuple, answers.by_answer([taken["answers"]])))})
