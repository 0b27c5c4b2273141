"""The hops of the parity gate for language models; what each allows is in `lm_parity.py`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from trimtune.errors import StepFailed
from trimtune.measure import perplexity
from trimtune.measure._lm_subject import scored_subject
from trimtune.process import Watch, Worker
from trimtune.ship import adapters, lm_answers, lm_parity
from trimtune.ship.lm_parity import EXACT, Allowed, LMHop
from trimtune.ship.manifest import ADAPTER, MODEL
from trimtune.ship.parity import asked, evenly, told
from trimtune.ship.source import Source
from trimtune.study.language import Split
from trimtune.study.model import locate
from trimtune.tasks import causal_lm

MAX_ROWS = 200
"""validation rows that the gate looks at: thousands of tokens settle it"""


def facts(source: Source) -> dict[str, Any]:
    """What a manifest says beside what every manifest says: how prompts become tokens."""
    reading = lm_answers.read(source.runnable.folder)
    return {"rendering": causal_lm.rendered(causal_lm.load_tokenizer(source.runnable.folder), **reading).facts()}


def before(source: Source, folder: Path, watch: Watch) -> tuple[list[LMHop], None]:
    """The hops up to the engine."""
    hops, base = [], locate(source.result.study.model)
    learned, adapter = source.tuned.folder / ADAPTER, folder / ADAPTER
    if learned.is_dir():
        with _recorded(source, folder, "tuned → plain peft", source.tuned.folder, False) as compare:
            if adapters.can_merge(learned):
                hops.append(told(compare("tuned → merged", EXACT, lm_answers.model, source.tuned.folder, True), watch))
            if source.adapter:
                reading = lm_answers.read(source.tuned.folder)
                plain = compare("tuned → plain peft", EXACT, lm_answers.plain_peft, base, adapter, base, reading)
                hops.append(told(plain, watch))
    engine = source.row.candidate.engine.name
    allowed = lm_parity.allowed_of(engine, source.numerics, source.precision)
    with _recorded(source, folder, "model → engine", source.trimmed.folder, True) as compare:
        hops.append(told(compare("model → engine", allowed, lm_answers.exported, folder / MODEL, engine, fresh=True), watch))
    return hops, None


def after(source: Source, folder: Path, _: None, watch: Watch) -> LMHop:
    """The last hop, by the bundle's own loading in a process that has seen nothing else."""
    name = "measured → bundle"
    measured = [one for one in source.result.predictions.get(source.row.name, ()) if not isinstance(one, int)]
    if not measured:
        raise StepFailed(f"The parity gate refused to ship. {name}: the run recorded no log-likelihoods. Nothing was written.")
    with Worker() as worker:
        shipped = asked(name, worker, bundle_likelihoods, folder, source.rows.test, source.result.study.fit.max_length)
    hop: LMHop = told(lm_parity.compare_shipped(measured, shipped), watch)
    return hop


def adapter(source: Source, folder: Path, watch: Watch) -> LMHop:
    """`tuned → plain peft` of a folder with an adapter and its tokenizer, which has the template of the study."""
    with _recorded(source, folder, "tuned → plain peft", source.tuned.folder, False) as compare:
        hop: LMHop = told(compare("tuned → plain peft", EXACT, lm_answers.plain_peft, locate(source.result.study.model), folder,
                                  folder, _own(source)), watch)
    return hop


def merged(source: Source, folder: Path, watch: Watch) -> LMHop:
    """`tuned → merged` of a plain transformers folder, whose tokenizer has the template of the study."""
    with _recorded(source, folder, "tuned → merged", source.trimmed.folder, False) as compare:
        hop: LMHop = told(compare("tuned → merged", EXACT, lm_answers.plain_model, folder, _own(source)), watch)
    return hop


def bundle_likelihoods(folder: Path, test: Split, max_length: int) -> list[tuple[float, int]]:
    """(nll, tokens) of each test prompt's rows by a bundle that is loaded for it."""
    from trimtune.ship.bundle import language_model

    found = language_model(folder)
    subject = scored_subject(causal_lm, folder / MODEL, found.decoder, found.tokenizer, test, max_length, found.reading)
    return perplexity.by_row([perplexity.sample(subject, perplexity.Config())])


def _own(source: Source) -> dict[str, Any]:
    """The reading of a plain folder: whoever loads it has its tokenizer's template and no other."""
    return {**lm_answers.read(source.tuned.folder), "template": ""}


@contextmanager
def _recorded(source: Source, folder: Path, name: str, *where: Any) -> Iterator[Callable[..., LMHop]]:
    """A function that compares another side with a model folder's answers to the validation rows."""
    rows = source.rows.validation
    split, max_length = Split(evenly(rows.rows, MAX_ROWS), evenly(rows.numbers, MAX_ROWS)), source.result.study.fit.max_length

    def compare(hop: str, allowed: Allowed, open_: Callable[..., Any], *where: Any, fresh: bool = False) -> LMHop:
        with Worker() if fresh else nullcontext(worker) as theirs:
            found: LMHop = asked(hop, theirs, lm_answers.compared, kept, hop, allowed, split, max_length, open_, *where)
        return found

    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", suffix=".logits", dir=folder.parent) as place, Worker() as worker:
        kept = Path(place) / "kept"
        asked(name, worker, lm_answers.record, kept, split, max_length, lm_answers.model, *where)
        yield compare
