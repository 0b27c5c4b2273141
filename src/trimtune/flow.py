"""The whole pipeline on one page: study → candidates → tune → trim → engine → measure → choose → report.

Read this first. Each step has its place in the store, under the key of what decides its outcome: a rerun repeats nothing
and a killed run goes on where it was. Nothing here knows a method, a trim or an engine by name.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from trimtune import chains, parts
from trimtune.choose.choose import choose
from trimtune.engines._export import exported, why_not
from trimtune.errors import StepFailed, Unavailable
from trimtune.measure import _machine as machine
from trimtune.measure._baselines import race
from trimtune.measure._protocol import Measured, measure_all
from trimtune.measure._seeds import score_seeds
from trimtune.measure._study import settings_of
from trimtune.process import Watch, warm_up
from trimtune.records import Artifact, Candidate, Limit, Prefer, Study
from trimtune.report.files import write
from trimtune.results import Plan, Result, Row
from trimtune.store import Store, show
from trimtune.study.expand import expand
from trimtune.study.stored import prepared
from trimtune.tasks._base import base_of, reading_of
from trimtune.tasks._smaller import rival_of
from trimtune.trim._chain import refuse_lacking, trimmed
from trimtune.tune import forecast
from trimtune.tune.cost import cost
from trimtune.tune.every_method import Tuned, tuned_of

Built = tuple[list[Artifact], Artifact]
"""a candidate's tuned artifact and what each trim made of it, and the runnable folder that its engine made of the last"""


def run(study: Study, runs: Path, watch: Watch | None = None) -> Result:
    """Run a study. What it found lies in `runs/<study name>/`, every step in `runs/.store/`.

    Raises:
        TrimtuneError: the study, its data or its model can't be used. A candidate that fails is a row of the result.
    """
    started, store = time.perf_counter(), Store(runs / ".store", watch)
    warm_up()
    with store.locked(study.name):
        rows, facts = prepared(study, store)
        base = base_of(study, facts.labels, store)
        candidates, settings = expand(study), settings_of(study)
        refuse_lacking(candidates, study.task)
        rival = rival_of(study, base, facts.labels, store)

        store.stage("tune")
        baselines = race(study, base, rows, store, settings)
        tuned = tuned_of(candidates, study, base, rows, store)
        theirs = tuned_of(rival.candidates, rival.study, rival.base, rows, store)
        store.stage("trim and export")
        searched, ledgers = chains.search(study, tuned, rows, store)
        candidates += searched
        built = {candidate.name: _build(candidate, study, tuned, rows, store) for candidate in candidates}
        built |= {candidate.name: _build(candidate, rival.study, theirs, rows, store) for candidate in rival.candidates}
        store.stage("measure")
        engines = {candidate.name: candidate.engine for candidate in (*candidates, *rival.candidates)}
        runnable = {name: made[1] for name, made in built.items() if not isinstance(made, StepFailed)}
        reading = reading_of(study, rows)
        measured = measure_all(runnable, engines, rows, study.fit.max_length, store, task=study.task, reading=reading,
                               configs=settings, base=base,
                               others={candidate.name: rival.base for candidate in rival.candidates})
        searches = tuple(score_seeds(ledger, rows, study.fit.max_length, study.task, store, reading)
                         for ledger, _ in tuned.values())

        store.stage("choose and report")
        lines, smaller = ([_row(candidate, built[candidate.name], measured, store) for candidate in some]
                          for some in (candidates, rival.candidates))
        result = Result(study=study, data=facts, machine=machine.describe(), rows=tuple(lines), searches=searches,
                        baselines=baselines, rivals=tuple(smaller), chains=ledgers, steps=tuple(store.steps),
                        predictions={name: tuple(found) for name, found in measured.by_row.items()},
                        truth=tuple(rows.facts.get("test_labels", ())), by_round=measured.by_round,
                        by_answer={name: tuple(map(tuple, found)) for name, found in measured.by_answer.items() if found},
                        examples={name: tuple(found) for name, found in measured.examples.items() if found},
                        version=version("trimtune"), created=datetime.now(UTC).isoformat(timespec="seconds"),
                        seconds=time.perf_counter() - started)
        result = rechoose(result)
        folder = runs / study.name
        write(result, folder)
        for label, (_, artifact) in tuned.items():
            if artifact:
                show(artifact, folder / "tuned" / label.replace("/", "_"))
        return result


def plan(study: Study, runs: Path, watch: Watch | None = None) -> Plan:
    """What a run would do: the candidates, and what each method's fits would take, from timing a few real steps of each."""
    store = Store(runs / ".store", watch)
    warm_up()
    rows, facts = prepared(study, store)
    base, candidates = base_of(study, facts.labels, store), expand(study)
    refuse_lacking(candidates, study.task)
    rival = rival_of(study, base, facts.labels, store)
    forecasts = {method.label: forecast.of(method, study, base, rows, store) for method in study.tune}
    forecasts |= {candidate.method_label: forecast.of(candidate.method, rival.study, rival.base, rows, store)
                  for candidate in rival.candidates}
    reasons = {candidate.name: why_not(candidate, study.task, base.folder) for candidate in candidates}
    return Plan(study=study, data=facts, candidates=tuple(candidates), base=base.facts,
                unavailable={name: reason for name, reason in reasons.items() if reason}, forecast=forecasts)


def rechoose(result: Result, require: Sequence[Limit] | None = None, prefer: Prefer | None = None) -> Result:
    """What is chosen from a result's measurements, under its own limits or others: nothing is run."""
    study = result.study.model_copy(update={"require": result.study.require if require is None else tuple(require),
                                            "prefer": prefer or result.study.prefer})
    choice = choose(result.rows, result.predictions, result.truth, study.require, study.prefer, result.baselines,
                    parts.load("task", study.task).METRIC, result.by_answer, result.by_round, result.machine, result.data.labels,
                    result.rivals)
    return result.model_copy(update={"study": study, "choice": choice})


def _build(candidate: Candidate, study: Study, tuned: Tuned, rows: Artifact, store: Store) -> Built | StepFailed:
    """Tuned → trimmed → exported; or the failure that ended it, which becomes the candidate's row."""
    ledger, artifact = tuned[candidate.method.label]
    try:
        if artifact is None:
            raise StepFailed(f"tuning failed: {ledger.cause}")
        links = trimmed(candidate.trims, artifact, rows, study, store)
        return links, exported(candidate, links[-1], rows, study, store)
    except StepFailed as failure:
        return failure


def _row(candidate: Candidate, built: Built | StepFailed, measured: Measured, store: Store) -> Row:
    if isinstance(built, StepFailed) or candidate.name in measured.failures:
        cause = built.cause if isinstance(built, StepFailed) else measured.failures[candidate.name]
        return Row(candidate=candidate, status="unavailable" if isinstance(built, Unavailable) else "failed", cause=cause)
    links, runnable = built
    facts, caveats = runnable.facts, (made.facts.get("caveat", "") for made in (*links, runnable))
    return Row(candidate=candidate, status="measured", packed=facts["packed"], numerics=facts.get("numerics", ""),
               precision=facts.get("precision", ""), threads=facts.get("threads", 0), caveats=tuple(filter(None, caveats)),
               artifact=runnable.key, trimmed=links[-1].key,
               readings={**measured.readings[candidate.name], **cost(links, store)})
