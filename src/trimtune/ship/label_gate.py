"""The hops of the parity gate for models that give labels; what is judged on each is in `parity.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtune.errors import StepFailed
from trimtune.process import Watch, Worker
from trimtune.ship import padding, parity
from trimtune.ship.manifest import ADAPTER
from trimtune.ship.source import Source
from trimtune.study.model import locate

PADDED = "model → engine, padded"
_STRICT = (parity.MERGE_TOLERANCE, parity.AGREEMENT)


def facts(source: Source) -> dict[str, Any]:
    """What a manifest says beside what every manifest says: nothing."""
    return {}


def before(source: Source, folder: Path, watch: Watch) -> tuple[list[parity.Hop], Any]:
    """The hops up to the engine; also the engine's logits [N, C] of the validation rows."""
    candidate, shared = source.row.candidate, _shared(source)
    few = {**shared, "texts": parity.evenly(shared["texts"], padding.ROWS)}
    hops = []
    with Worker() as worker:
        if (folder / ADAPTER).is_dir():
            unmerged = parity.asked("tuned → merged", worker, parity.model_logits, source.tuned.folder, merge=False, **shared)
            merged = parity.asked("tuned → merged", worker, parity.model_logits, source.tuned.folder, merge=True, **shared)
            hops.append(parity.told(parity.compare("tuned → merged", unmerged, merged, *_STRICT), watch))
            plain = parity.asked("tuned → plain peft", worker, parity.plain_peft_logits, locate(source.result.study.model),
                                 folder / ADAPTER, labels=len(source.result.data.labels), **shared)
            hops.append(parity.told(parity.compare("tuned → plain peft", unmerged, plain, *_STRICT), watch))
        model = parity.asked("model → engine", worker, parity.model_logits, source.trimmed.folder, merge=True, **shared)
        padded = parity.asked(PADDED, worker, padding.model, source.trimmed.folder, **few)
    with Worker() as worker:
        logits_NC = parity.asked("model → engine", worker, parity.engine_logits, source.runnable.folder, candidate.engine.name,
                                 **shared)
        by_engine = parity.asked(PADDED, worker, padding.engine, source.runnable.folder, candidate.engine.name, **few)
    for name, one, other in (("model → engine", model, logits_NC), (PADDED, padded, by_engine)):
        hop = engine_hop(candidate.engine.name, source.numerics, source.precision, one, other, name)
        hops.append(parity.told(hop, watch))
    return hops, logits_NC


def engine_hop(engine: str, numerics: str, precision: str, model_NC: Any, engine_NC: Any,
               name: str = "model → engine") -> parity.Hop:
    """`model → engine` of the logits [N, C] of both, by what the engine promises for what it runs."""
    allowed_difference, allowed_agreement = parity.tolerance(engine, numerics, precision)
    note = f"run by {engine}"
    if allowed_difference is None:
        note += f"; {numerics} changes answers on purpose: recorded, not judged"
    return parity.compare(name, model_NC, engine_NC, allowed_difference, allowed_agreement, note)


def after(source: Source, folder: Path, logits_NC: Any, watch: Watch) -> parity.Hop:
    """The last hop, by the bundle's own loading in a process that has seen nothing else."""
    measured = [label for label in source.result.predictions.get(source.row.name, ()) if isinstance(label, int)]
    if len(measured) != len(source.rows.test.texts) or not measured:
        raise StepFailed(f"The parity gate refused to ship. measured → bundle: the run recorded {len(measured)} predictions for "
                         f"{len(source.rows.test.texts)} test rows. Nothing was written.")
    with Worker() as worker:
        validation, test = parity.asked("measured → bundle", worker, bundle_logits, folder,
                                        [parity.evenly(source.rows.validation.texts), source.rows.test.texts])
    exact = source.numerics == "plain" and source.precision in ("", "fp32")
    return parity.told(parity.compare_shipped(logits_NC, validation, measured, test, 1.0 if exact else parity.AGREEMENT), watch)


def adapter(source: Source, folder: Path, watch: Watch) -> parity.Hop:
    """`tuned → plain peft` of a folder with an adapter and its tokenizer."""
    with Worker() as worker:
        tuned = parity.asked("tuned → plain peft", worker, parity.model_logits, source.tuned.folder, merge=False,
                             **_shared(source))
        plain = parity.asked("tuned → plain peft", worker, parity.plain_peft_logits, locate(source.result.study.model), folder,
                             labels=len(source.result.data.labels), tokenizer=folder, **_shared(source))
    return parity.told(parity.compare("tuned → plain peft", tuned, plain, *_STRICT), watch)


def merged(source: Source, folder: Path, watch: Watch) -> parity.Hop:
    """`tuned → merged` of a plain transformers folder."""
    with Worker() as worker:
        tuned = parity.asked("tuned → merged", worker, parity.model_logits, source.trimmed.folder, merge=False, **_shared(source))
        plain = parity.asked("tuned → merged", worker, parity.plain_logits, folder, **_shared(source))
    return parity.told(parity.compare("tuned → merged", tuned, plain, *_STRICT), watch)


def bundle_logits(folder: Path, texts: list[list[str]]) -> list[Any]:
    """Logits [N, C] of each list of texts by a bundle that is loaded for it."""
    from trimtune.ship.bundle import load

    predictor: Any = load(folder)
    return [predictor.logits(rows) for rows in texts]


def _shared(source: Source) -> dict[str, Any]:
    study = source.result.study
    return {"task": study.task, "texts": parity.evenly(source.rows.validation.texts), "max_length": study.fit.max_length}
