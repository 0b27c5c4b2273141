"""`trim: auto`: chains of trims are searched, for each method on each engine, toward the study's limits.

A part that may stand in a chain says so with `AUTO`: its place among the links (vocabulary before layers before neurons) and the
settings that are tried; a number format comes last, if the engine has it. Optuna proposes (a multi-objective tree of Parzen
estimators; Ozaki et al. 2020, GECCO, section 4): as good, as small and as fast as it gets on the VALIDATION rows, test rows are
never read. Cheap looks come first: bytes and milliseconds don't depend on a fit, so where the study limits them a chain is built
without its fits, and only one that is inside the limits is fitted. What is kept are the best, the smallest and the fastest of
those that are as good as far as the rows tell, and then the next best that none beats; each becomes a candidate like any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

from trimtune import parts
from trimtune.engines._export import exported, why_not
from trimtune.errors import StepFailed
from trimtune.measure._glance import Look, glance
from trimtune.records import Artifact, Candidate, Limit, Study, Use
from trimtune.results import ChainSearch, ChainTry
from trimtune.store import Store
from trimtune.study.expand import skipped
from trimtune.trim._chain import trimmed
from trimtune.tune.every_method import Tuned

Chain = tuple[Use, ...]
_LIMITED = {"size_mb": ("size_mb", 1.0), "latency_p50_ms": ("ms", 1.1)}
"""readings that a look without fits foresees → its name there, and the factor by which it may miss a limit: times are rough"""
_PROPOSALS = 20
"""proposals for each chain that is tried: the same one may come again"""


def search(study: Study, tuned: Tuned, rows: Artifact, store: Store) -> tuple[list[Candidate], tuple[ChainSearch, ...]]:
    """The chains to be measured, as candidates, and what was tried; nothing if the study does not ask."""
    found: list[Candidate] = []
    ledgers: list[ChainSearch] = []
    methods = [method for method in study.tune if method.label in tuned]  # of a method that `skip` names nothing was tuned
    for method, engine in product(methods, study.engine) if study.auto else ():
        artifact, plain = tuned[method.label][1], Candidate(method=method, trims=(), engine=engine)
        if artifact is None or why_not(plain, study.task):
            continue
        try:
            chains, tries = _one(plain, artifact, study, rows, store)
        except StepFailed as failure:  # the untrimmed candidate's row tells it as well
            chains, tries = [], [ChainTry(trims="none", words=f"failed: {failure.cause}")]
        found += [plain.model_copy(update={"trims": chain}) for chain in chains]
        ledgers.append(ChainSearch(method=method.label, engine=engine.label, tries=tuple(tries)))
    return found, tuple(ledgers)


def space(plain: Candidate, task: str) -> tuple[list[list[Use | None]], list[Use | None]]:
    """What each link of a chain may be, in the chain's order, and which number formats may end it; None: left out."""
    modules = {name: parts.load("trim", name) for name in parts.names("trim")}
    able = {name: module for name, module in modules.items() if task in module.TASKS and hasattr(module, "AUTO")}
    order = sorted(able, key=lambda name: able[name].AUTO[0])
    uses = {name: [_use(name, given) for given in able[name].AUTO[1]] for name in order}
    here = [use for name in order for use in uses[name] if able[name].NUMERICS
            and not why_not(plain.model_copy(update={"trims": (use,)}), task)]
    return [[None, *uses[name]] for name in order if not able[name].NUMERICS], [None, *here]


def _one(plain: Candidate, tuned: Artifact, study: Study, rows: Artifact, store: Store) -> tuple[list[Chain], list[ChainTry]]:
    """The kept chains of one method on one engine, and the ledger."""
    assert study.auto is not None
    links, formats = space(plain, study.task)
    proposer, known = _optuna(study, links, formats), {_label(chain) for chain in study.trim}

    def look(chain: Chain) -> Look:
        made = trimmed(chain, tuned, rows, study, store)[-1]
        return glance(exported(plain.model_copy(update={"trims": chain}), made, rows, study, store), plain.engine.name, study,
                      rows, store)

    parent, looks, tries = look(()), dict[str, Look](), list[tuple[Chain, Look | None, str]]()
    for _ in range(_PROPOSALS * study.auto.tries):
        if len(tries) == study.auto.tries:
            break
        trial = proposer.ask()
        chain = _proposed(trial, links, formats)
        if _label(chain) in known or skipped(plain.model_copy(update={"trims": chain}), study):
            proposer.tell(trial, state=_pruned())
            continue
        known.add(_label(chain))
        store.stage(f"try chain {len(tries) + 1} of {study.auto.tries} for {plain.name}: {_label(chain)}")
        seen, words = _tried(chain, study, look)
        tries.append((chain, seen, words))
        if seen and not words:
            looks[_label(chain)] = seen
            proposer.tell(trial, list(seen))
        else:
            proposer.tell(trial, state=_pruned())
    kept = keep(looks, parent, study, rows.facts["rows"]["validation"])
    ledger = [_told((), parent, ""), *(_told(chain, seen, words, _label(chain) in kept) for chain, seen, words in tries)]
    return [chain for chain, _, _ in tries if _label(chain) in kept], ledger


def _tried(chain: Chain, study: Study, look: Callable[[Chain], Look]) -> tuple[Look | None, str]:
    """A chain looked at without its fits, where limits may rule it out, and then with them; and why it was left, if it was."""
    bare = tuple(_without_fit(use) for use in chain)
    try:
        if bare != chain and any(limit.reading in _LIMITED for limit in study.require):
            seen = look(bare)
            if beyond := _beyond(seen, study):
                return seen, f"not fitted: outside {beyond} whatever a fit would bring"
        return look(chain), ""
    except StepFailed as failure:
        return None, f"failed: {failure.cause}"


def keep(looks: Mapping[str, Look], parent: Look, study: Study, n: int) -> list[str]:
    """The names of the chains worth measuring: the best; the smallest and the fastest of those as good as the best, within
    one standard error of a share of `n` validation rows; then whatever no other beats in all three, the better first."""
    assert study.auto is not None
    done = {name: seen for name, seen in looks.items() if not _beyond(seen, study)}
    if not done:
        return []
    best = max(seen.score for seen in (parent, *done.values()))
    good = [name for name, seen in done.items() if seen.score >= best - math.sqrt(best * (1 - best) / n)]
    order = sorted(done, key=lambda name: -done[name].score)
    wanted = order[:1]
    if good:
        wanted += [min(good, key=lambda name: done[name].size_mb), min(good, key=lambda name: done[name].ms)]
    wanted += [name for name in order if not any(_beats(other, done[name]) for other in done.values())]
    return list(dict.fromkeys(wanted))[:study.auto.keep]


def _beats(one: Look, other: Look) -> bool:
    """At least as good in score, bytes and time, and better in one."""
    gains = (one.score - other.score, other.size_mb - one.size_mb, other.ms - one.ms)
    return min(gains) >= 0 and max(gains) > 0


def _beyond(seen: Look, study: Study) -> Limit | None:
    """The first limit that a chain is outside of, as far as a rough look tells."""
    for limit in study.require:
        field, room = _LIMITED.get(limit.reading, ("", 1.0))
        if field and not limit.allows(getattr(seen, field) / room):
            return limit
    return None


def _told(chain: Chain, seen: Look | None, words: str, kept: bool = False) -> ChainTry:
    found = dict(size_mb=seen.size_mb, ms=seen.ms, score=None if words else seen.score) if seen else {}
    return ChainTry(trims=_label(chain), kept=kept, words=words, **found)


def _use(name: str, given: dict[str, Any]) -> Use:
    return Use(name=name, config=parts.load("trim", name).Config(**given).model_dump(mode="json"), given=given)


def _without_fit(use: Use) -> Use:
    return use.model_copy(update={"config": {**use.config, "epochs": 0}}) if "epochs" in use.config else use


def _label(chain: Chain) -> str:
    return "+".join(use.label for use in chain) or "none"


def _optuna(study: Study, links: list[list[Use | None]], formats: list[Use | None]) -> Any:
    """A proposer that begins with each link alone, in the number formats by turns."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    alone = {f"link{at}": 0 for at in range(len(links))}
    first = [{**alone, f"link{at}": 1, "format": (at + 1) % len(formats)} for at in range(len(links))]
    sampler = optuna.samplers.TPESampler(seed=study.seed, multivariate=True, n_startup_trials=len(first) + 3)
    proposer = optuna.create_study(directions=["maximize", "minimize", "minimize"], sampler=sampler)
    for start in first:
        proposer.enqueue_trial(start)
    return proposer


def _proposed(trial: Any, links: list[list[Use | None]], formats: list[Use | None]) -> Chain:
    picked = [options[trial.suggest_categorical(f"link{at}", list(range(len(options))))] for at, options in enumerate(links)]
    picked.append(formats[trial.suggest_categorical("format", list(range(len(formats))))])
    return tuple(use for use in picked if use)


def _pruned() -> Any:
    from optuna.trial import TrialState

    return TrialState.PRUNED
