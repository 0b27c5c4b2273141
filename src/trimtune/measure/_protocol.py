"""How candidates are measured: each in its own process, all in turns, so that the machine's moods hit all alike.

Every candidate is loaded once into a worker that stays. For each measure and round the candidates take one turn each,
A B C A B C; nothing else of ours runs meanwhile. What a candidate's turns gave is one artifact of the store, so a rerun
measures only what is new: beside one candidate that was measured before, the anchor, whose drift says whether old and new
figures may stand in one table. A round during which other processes took much of the cores is taken again and counted, half of a
measure's rounds at most.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from trimtune import parts
from trimtune.errors import StepFailed
from trimtune.measure import _machine
from trimtune.measure._session import Job, Samples, Taken, pace_ms, run_session, told
from trimtune.measure._study import references
from trimtune.process import threads
from trimtune.records import Artifact, Reading, Use
from trimtune.results import Turns
from trimtune.store import Store
from trimtune.study.uses import tasks_of

DRIFT_ALLOWED = 0.15
"""beyond this change of the anchor's pace, old and new figures are not comparable: all is measured anew"""
_SAMPLES = "samples.json"
_TIMED_UNITS = ("ms", "rows/s", "tokens/s", "mJ")


class Measured(NamedTuple):
    """What is known of candidates, by their names."""

    readings: dict[str, dict[str, Reading]]
    by_row: dict[str, list[Any]]
    """for comparing candidates: the label index of each test row, or a language model's (nll, tokens) of each prompt's rows"""
    failures: dict[str, str]
    """the cause, of those that could not be measured"""
    examples: dict[str, list[dict[str, Any]]]
    """a language model's first answers: prompt, reference, answer, ended"""
    by_answer: dict[str, list[Any]]
    """for comparing a language model with rules that only answer: BLEU's statistics of each answer"""
    by_round: dict[str, Turns]
    """for comparing speeds"""


def measure_all(runnable: Mapping[str, Artifact], engines: Mapping[str, Use], rows: Artifact, max_length: int, store: Store, *,
                task: str = "text_classification", reading: dict[str, Any] | None = None,
                configs: Mapping[str, dict[str, Any]] | None = None, base: Artifact | None = None,
                others: Mapping[str, Artifact] | None = None) -> Measured:
    """Measure every candidate, or read what is known of it from the store.

    Args:
        runnable: candidate → its runnable folder.
        engines: candidate → the engine that loads it.
        rows: the artifact that holds the splits; only its test split is used.
        max_length: tokens kept of a row.
        task: of the study; its measures are taken, those first that nothing else may come before.
        reading: what else decides how the task's rows become tokens (`reading` of the task).
        configs: measure → what differs from its defaults.
        base: the untuned model, for measures that compare with it.
        others: candidate → the untuned model that it was made from, where that is another one.
    """
    given = configs or {}
    modules = {name: module for name in parts.names("measure") if task in tasks_of(module := parts.load("measure", name))}
    full = {name: modules[name].Config(**given.get(name, {})).model_dump()
            for name in sorted(modules, key=lambda name: not getattr(modules[name], "FIRST", False))}
    job = Job(runnable, engines, rows, max_length, task, reading or {}, full, store.folder / "logs", store.watch)
    kept = {name: found for name in runnable if (found := store.get(**_recipe(job, name)))}
    missing = [name for name in runnable if name not in kept]
    taken = Taken()
    if missing:
        anchor = next(iter(kept), None)
        taken = run_session(job, missing, anchor, pace_ms(job, _samples(kept[anchor])) if anchor else None)
        drift = max((drift for _, drift in taken.anchors.values()), key=lambda drift: abs(drift - 1), default=1.0)
        if anchor and abs(drift - 1) > DRIFT_ALLOWED:
            store.watch({"kind": "note", "text": f"{anchor} now takes {drift:.2f}× the time it took when it was measured: "
                                                 "all candidates are measured anew, so that they stand on one footing"})
            taken = run_session(job, list(runnable), None, None)
            for artifact in {artifact.key: artifact for artifact in kept.values()}.values():
                store.drop(artifact)
    measured, failures = _commit(job, store, taken)
    samples = {name: _samples(artifact) for name, artifact in measured.items()}
    bases = {name: (others or {}).get(name, base) for name in measured}
    beside = {name: references(full, untuned, task, max_length, store) if untuned else {} for name, untuned in bases.items()}
    readings = {name: _readings(job, samples[name], str(measured[name].facts["note"]), beside[name]) for name in measured}
    by_row, examples, by_answer = ({name: list(told(job, taken, what) or ()) for name, taken in samples.items()}
                                   for what in ("by_row", "examples", "by_answer"))
    return Measured(readings, by_row, failures, examples, by_answer,
                    {name: _turns(job, artifact, samples[name]) for name, artifact in measured.items()})


def _recipe(job: Job, name: str) -> dict[str, Any]:
    """What decides a candidate's samples: the folder, the rows and how they are read, the code, its configs, the machine."""
    sources = [parts.source_hash("task", job.task), *(parts.source_hash("measure", measure) for measure in job.configs)]
    code = hashlib.sha256("".join(sources).encode()).hexdigest()
    config = {"measures": job.configs, "max_length": job.max_length, "threads": threads(), "task": job.task,
              "reading": job.reading, "machine": _machine.describe()}
    return {"step": "measure", "part": job.engines[name].name, "config": config, "code": code,
            "parents": (job.runnable[name], job.rows)}


def _commit(job: Job, store: Store, taken: Taken) -> tuple[dict[str, Artifact], dict[str, str]]:
    measured: dict[str, Artifact] = {}
    failures: dict[str, str] = {}
    for name in job.runnable:
        arguments = {"samples": taken.samples.get(name), "cause": taken.failures.get(name),
                     "facts": {"note": _note(taken, name), "session": taken.sessions.get(name, ""),
                               "drift": taken.anchors.get(name, ("", 1.0))[1],
                               "slowed": taken.rounds[name].slowed if name in taken.rounds else 1.0}}
        try:
            measured[name] = store.step(work=_keep, arguments=arguments, fresh=False, **_recipe(job, name),
                                        spent=taken.spent.get(name, (0.0, 0.0, 0.0)))
        except StepFailed as error:
            failures[name] = error.cause
    return measured, failures


def _keep(folder: Path, samples: Samples | None, cause: str | None, facts: dict[str, Any]) -> dict[str, Any]:
    """Work of the store step: the samples as they were taken. A reading is made of them whenever one is asked for."""
    if samples is None:
        raise StepFailed(cause or "it was not measured")
    (folder / _SAMPLES).write_text(json.dumps(samples), encoding="utf-8")
    return facts


def _note(taken: Taken, name: str) -> str:
    found = [str(taken.rounds[name])] if name in taken.rounds else []
    if name in taken.anchors:
        anchor, drift = taken.anchors[name]
        found.append(f"taken later than others, beside {anchor}, which then took {drift:.2f}× its earlier time")
    return "; ".join(filter(None, found))


def _samples(artifact: Artifact) -> Samples:
    samples: Samples = json.loads((artifact.folder / _SAMPLES).read_text(encoding="utf-8"))
    return samples


def _turns(job: Job, artifact: Artifact, samples: Samples) -> Turns:
    """The candidate's times by round, of the measures that have them: TURNS says what they are."""
    timed = {name: module for name in job.configs if hasattr(module := parts.load("measure", name), "TURNS")}
    rounds = {module.TURNS: tuple(map(tuple, module.by_round(samples[name], module.Config(**job.configs[name]))))
              for name, module in timed.items()}
    facts = {name: artifact.facts[name] for name in ("session", "drift", "slowed") if name in artifact.facts}
    return Turns(**rounds, **facts)


def _readings(job: Job, samples: Samples, note: str, beside: Mapping[str, dict[str, Any]]) -> dict[str, Reading]:
    found: dict[str, Reading] = {}
    for measure, config in job.configs.items():
        module = parts.load("measure", measure)
        reference = (beside[measure],) if measure in beside else ()
        for name, reading in module.summarize(samples[measure], module.Config(**config), *reference).items():
            timed = module.ROUNDS > 1 and reading.value is not None and reading.unit in _TIMED_UNITS
            notes = "; ".join(filter(None, (reading.note, note * timed)))
            found[name] = reading.model_copy(update={"note": notes})
    return found
