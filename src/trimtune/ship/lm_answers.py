"""The sides of a hop of language models, each in a fresh process: one leaves its logits in a folder, the other reads them there.

So only one model is in memory at a time. Both render the same rows by themselves, from their own folder's tokenizer and reading:
what ships must not only answer as what was tuned, it must also be asked the same. Of long rows and large vocabularies fewer
rows are taken, so that the folder stays below a gigabyte.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trimtune.engines import _threads
from trimtune.engines._decoding import padded
from trimtune.errors import StepFailed
from trimtune.process import threads
from trimtune.ship import lm_parity
from trimtune.ship.lm_parity import Allowed, LMHop
from trimtune.study.language import Split
from trimtune.tasks import causal_lm
from trimtune.tasks._chunked_loss import IGNORED
from trimtune.tasks._inputs import READING, Inputs, reading_in

if TYPE_CHECKING:
    Logits = Callable[[np.ndarray, np.ndarray], np.ndarray]

_KEPT_BYTES, _BATCH_BYTES = 1e9, 256e6
_TOGETHER = 16
_ROWS = "rows.json"


class Side(NamedTuple):
    """A loaded model: logits [B, T, V] of padded rows, and how its rows become tokens."""

    logits: Logits
    tokenizer: Any
    reading: dict[str, Any]


def model(folder: Path, merge: bool) -> Side:
    """A model folder in PyTorch, float32: the reference."""
    return Side(_torch(causal_lm.load_model(folder, merge=merge)), causal_lm.load_tokenizer(folder), read(folder))


def plain_peft(base: Path, adapter: Path, tokenizer: Path, reading: dict[str, Any]) -> Side:
    """An adapter on the base model by peft and transformers alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    found = AutoModelForCausalLM.from_pretrained(base, dtype="float32", use_safetensors=True)
    return Side(_torch(PeftModel.from_pretrained(found, str(adapter)).eval()), causal_lm.load_tokenizer(tokenizer), reading)


def plain_model(folder: Path, reading: dict[str, Any]) -> Side:
    """A folder by transformers alone."""
    from transformers import AutoModelForCausalLM

    found = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", use_safetensors=True).eval()
    return Side(_torch(found), causal_lm.load_tokenizer(folder), reading)


def exported(folder: Path, engine: str) -> Side:
    """A runnable folder by its engine."""
    return Side(_threads.load(engine, folder, threads()).logits, causal_lm.load_tokenizer(folder), read(folder))


def read(folder: Path) -> dict[str, Any]:
    """What a folder says about how its rows became tokens."""
    if not (folder / READING).is_file():
        raise StepFailed(f"its folder has no {READING}, so nothing says how prompts become tokens")
    return reading_in(folder)


def record(kept: Path, split: Split, max_length: int, open_: Callable[..., Side], *where: Any) -> None:
    """Leave in `kept` which rows were asked, as tokens, and the logits before their learned tokens."""
    side = open_(*where)
    rows = _rows(side, split, max_length)
    step = math.ceil(4 * sum(rows.counts) * len(side.tokenizer) / _KEPT_BYTES)
    chosen = list(range(0, len(rows.ids), max(1, step)))
    order = sorted(chosen, key=lambda row: -len(rows.ids[row]))
    together = max(1, min(_TOGETHER, int(_BATCH_BYTES / (4 * len(rows.ids[order[0]]) * len(side.tokenizer)))))
    batches = [order[start:start + together] for start in range(0, len(order), together)]
    kept.mkdir()
    asked = {str(row): [rows.ids[row], rows.targets[row], rows.numbers[row]] for row in chosen}
    (kept / _ROWS).write_text(json.dumps({"asked": asked, "batches": batches, "rows": len(rows.ids)}), encoding="utf-8")
    for number, batch in enumerate(batches):
        np.save(kept / f"{number}.npy", _learned(side, [rows.ids[row] for row in batch], [rows.targets[row] for row in batch])[0])


def compared(kept: Path, name: str, allowed: Allowed, split: Split, max_length: int, open_: Callable[..., Side],
             *where: Any) -> LMHop:
    """The hop from what `record` left to another side."""
    side = open_(*where)
    known = json.loads((kept / _ROWS).read_text(encoding="utf-8"))
    rows = _rows(side, split, max_length)
    unlike = _rendered_otherwise(name, known, rows, side.tokenizer)
    if unlike:
        return unlike
    found, places = [], []
    for number, batch in enumerate(known["batches"]):
        before_NV = np.load(kept / f"{number}.npy")
        after_NV, at = _learned(side, [rows.ids[row] for row in batch], [rows.targets[row] for row in batch])
        if before_NV.shape != after_NV.shape:
            return LMHop(name=name, rows=len(known["asked"]), passed=False,
                         note=f"it gives logits for {after_NV.shape[1]} tokens, not for {before_NV.shape[1]}")
        found.append(lm_parity.tokens(before_NV, after_NV, at[:, 2]))
        places += [(batch[row], place) for row, place, _ in at.tolist()]
    order = sorted(range(len(places)), key=places.__getitem__)  # the first divergence is the file's
    inorder = lm_parity.ordered(lm_parity.joined(found), order)
    index = lm_parity.first(inorder)
    divergence = None
    if index is not None:
        row, place = places[order[index]]
        divergence = lm_parity.parting(rows.numbers[row], rows.ids[row], place, int(inorder.best_before[index]),
                                       int(inorder.best_after[index]), side.tokenizer)
    return lm_parity.judged(name, inorder, len(known["asked"]), allowed, divergence)


def _rows(side: Side, split: Split, max_length: int) -> Inputs:
    return causal_lm.inputs(side.tokenizer, split, max_length, "validation", **side.reading)


def _rendered_otherwise(name: str, known: dict[str, Any], rows: Inputs, tokenizer: Any) -> LMHop | None:
    """The hop that failed where the other side's rows are not the same tokens, learned at the same places."""
    note = "rows are rendered differently than in training: the tokenizer, the chat template or what is learned is another"
    for row, (ids, targets, number) in known["asked"].items():
        here = rows.ids[int(row)] if int(row) < len(rows.ids) else []
        if here == ids and rows.targets[int(row)] == targets:
            continue
        at = next((at for at, pair in enumerate(zip(ids, here, strict=False)) if pair[0] != pair[1]), min(len(ids), len(here)))
        parting = None
        if at < min(len(ids), len(here)):
            parting = lm_parity.parting(number, ids, at, ids[at], here[at], tokenizer)
        return LMHop(name=name, rows=len(known["asked"]), passed=False, divergence=parting, note=note)
    return None if known["rows"] == len(rows.ids) else LMHop(name=name, rows=len(known["asked"]), passed=False, note=note)


def _learned(side: Side, ids: Sequence[list[int]], targets: Sequence[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, V] before the learned tokens of some rows; of each its row, its place in it and itself, [N, 3]."""
    at_N3 = np.array([(row, place, token) for row, target in enumerate(targets) for place, token in enumerate(target)
                      if token != IGNORED], dtype=np.int64).reshape(-1, 3)
    logits_BTV = side.logits(*padded(ids, left=False))
    return np.asarray(logits_BTV[at_N3[:, 0], at_N3[:, 1] - 1], dtype=np.float32), at_N3


def _torch(module: Any) -> Logits:
    from trimtune.engines._torch_decoder import TorchDecoder

    return TorchDecoder(module).logits
