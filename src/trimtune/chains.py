"""`trim: auto`: chains of trims are searched, for each method on each engine, toward the study's limits.

A part that may stand in a chain says so with `AUTO`: its place among the links (vocabulary before layers before neurons) and the
settings that are tried; a number format comes last, if the engine has it. Optuna proposes (a multi-objective tree of Parzen
estimators; Ozaki et al. 2020, GECCO, section 4): as good, as small and as fast as it gets on the VALIDATION rows, test rows are
never read. Cheap looks come first: bytes and times don't depend on a fit, so where the study limits them a chain is built
without its fits, and only one that is inside the limits is fitted. What is kept are the best, the smallest and the fastest of
those that are as good as far as the rows tell, and then the next best that none beats; each becomes a candidate like any other.

As good, with scores s that are shares of n rows right, and with those of language models (nats per learned token; ℓ_r: what a
chain loses on prompt r's rows against the best, c_r: their tokens), whose rows differ far more than models do and are paired:

    s ≥ s_best − √(s_best (1 − s_best) / n)                  s ≥ s_best − max(1.96 · SE(Σ ℓ_r / Σ c_r), 0.001)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

import numpy as np

from trimtune import parts
from trimtune.engines._export import exported, why_not
from trimtune.errors import StepFailed
from trimtune.measure._glance import Look, glance, timed
from trimtune.measure._intervals import Z95, ratio_error
from trimtune.records import Artifact, Candidate, Limit, Study, Use
from trimtune.results import ChainSearch, ChainTry
from trimtune.store import Store
from trimtune.study.expand import skipped
from trimtune.tasks._perplexity import SAME
from trimtune.trim._chain import trimmed
from trimtune.tune.every_method import Tuned

Chain = tuple[Use, ...]
_EXACT, _ROUGH = ("size_mb", "kv_cache_mb"), 1.1
"""readings that a look takes as a measurement would; the factor by which its others may miss a limit, since times are rough"""
_CHANCE = Z95 * math.sqrt(2)
"""standard errors by which validation rows may be outside a limit of quality: test rows have a chance of their own"""
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
        ledgers.append(ChainSearch(method=method.label, engine=engine.label, tries=tuple(tries), timed=timed(study.task)))
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
        candidate = plain.model_copy(update={"trims": chain})
        if _label(chain) in known or skipped(candidate, study) or why_not(candidate, study.task, tuned.folder):
            proposer.tell(trial, state=_pruned())
            continue
        known.add(_label(chain))
        store.stage(f"try chain {len(tries) + 1} of {study.auto.tries} for {plain.name}: {_label(chain)}")
        seen, words = _tried(chain, study, parent, look)
        tries.append((chain, seen, words))
        if seen and not words:
            looks[_label(chain)] = seen
            proposer.tell(trial, [seen.score, seen.size_mb, seen.ms])
        else:
            proposer.tell(trial, state=_pruned())
    kept = keep(looks, parent, study, rows.facts["rows"]["validation"])
    ledger = [_told((), parent, ""), *(_told(chain, seen, words, _label(chain) in kept) for chain, seen, words in tries)]
    return [chain for chain, _, _ in tries if _label(chain) in kept], ledger


def _tried(chain: Chain, study: Study, parent: Look, look: Callable[[Chain], Look]) -> tuple[Look | None, str]:
    """A chain looked at without its fits, where limits may rule it out, and then with them; and why it was left, if it was."""
    bare = tuple(_without_fit(use) for use in chain)
    try:
        if bare != chain and any(limit.reading in parent.costs for limit in study.require):
            seen = look(bare)
            if beyond := _beyond(seen, study):
                return seen, f"not fitted: outside {beyond} whatever a fit would bring"
        return look(chain), ""
    except StepFailed as failure:
        return None, f"failed: {failure.cause}"


def keep(looks: Mapping[str, Look], parent: Look, study: Study, n: int) -> list[str]:
    """The names of the chains worth measuring: the best; the smallest and the fastest of those as good as the best, as far as
    `n` validation rows tell; then whatever no other beats in all three, the better first."""
    assert study.auto is not None
    done = {name: seen for name, seen in looks.items() if not (_beyond(seen, study) or _worse(seen, parent, study))}
    if not done:
        return []
    best = max((parent, *done.values()), key=lambda seen: seen.score)
    good = [name for name, seen in done.items() if seen.score >= best.score - _unseen(seen, best, n)]
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


def _unseen(seen: Look, best: Look, n: int) -> float:
    """How much of a score the rows can't tell: see the formula above."""
    if seen.rows:
        return max(SAME, Z95 * _error(seen, best))
    return math.sqrt(best.score * (1 - best.score) / n)


def _error(seen: Look, other: Look | None = None) -> float:
    """The standard error of a language model's score; of its difference from another's on the same rows, if one is given."""
    nll_N, counts_N = np.array(seen.rows, dtype=float).T
    return ratio_error(nll_N - np.array(other.rows, dtype=float).T[0] if other else nll_N, counts_N)


def _beyond(seen: Look, study: Study) -> Limit | None:
    """The first limit on bytes or times that a chain is outside of, as far as a rough look tells."""
    for limit in study.require:
        if limit.reading in seen.costs:
            value, room = seen.costs[limit.reading], 1.0 if limit.reading in _EXACT else _ROUGH
            if not limit.allows(value / room if limit.op in ("<=", "<") else value * room):
                return limit
    return None


def _worse(seen: Look, parent: Look, study: Study) -> Limit | None:
    """The first limit on perplexity that a chain is outside of beyond chance, itself or against its parent. Limits on accuracy
    wait for the test rows."""
    task = parts.load("task", study.task)
    for limit in study.require:
        if limit.reading == task.METRIC and seen.rows:
            best = task.metric(seen.score + _CHANCE * _error(seen, parent if limit.parent else None))
            base = task.metric(parent.score)
            more = (best - base) * (100 / base if limit.percent else 1.0)
            if not limit.allows(more if limit.parent else best):
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
