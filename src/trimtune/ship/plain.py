"""Folders for those who have no trimtune: an adapter in PEFT's layout, or a plain transformers model. Both are proven first."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.process import Watch, Worker
from trimtune.ship import adapters, plain_card
from trimtune.ship.build import gate_of
from trimtune.ship.manifest import ADAPTER, CARD, listing
from trimtune.ship.source import Source
from trimtune.study.turns import TEXT
from trimtune.tasks import _shapes
from trimtune.tasks._inputs import READING


def adapter(source: Source, folder: Path, watch: Watch) -> dict[str, Any]:
    """Write a candidate's adapter (head included), its tokenizer and a card.

    Raises:
        TrimtuneError: its method keeps no adapter, or one that belongs to other weights than the study's model (qlora).
        ParityFailed: plain peft answers otherwise.
    """
    if source.adapter is None:
        raise TrimtuneError(f"--format peft: {source.row.name} has no adapter of the study's model; "
                            f"{source.row.candidate.method.label} changes the model's own weights.",
                            "Allowed: candidates of methods that keep one, such as lora.",
                            "Take --format merged, or another candidate with --candidate.")
    shutil.copytree(source.adapter, folder)
    adapters.name_base(folder, source.result.study.model)
    with Worker() as worker:
        worker.call(_write_tokenizer, folder, source.tuned.folder, source.result.study.task)
    return _described(source, folder, gate_of(source).adapter(source, folder, watch), "peft")


def merged(source: Source, folder: Path, watch: Watch) -> dict[str, Any]:
    """Write a candidate's model before its engine: weights with the adapter folded in, tokenizer and a card.

    Raises:
        TrimtuneError: its method learns virtual tokens, or its trims left shapes that plain transformers can't read.
        ParityFailed: plain transformers answers otherwise.
    """
    kept = source.tuned.folder / ADAPTER
    if kept.is_dir() and not adapters.can_merge(kept):
        raise TrimtuneError(f"--format merged: {source.row.candidate.method.label} learns virtual tokens, which stand beside the "
                            "weights: no weights can hold them.", "Allowed: methods that change weights, such as full or lora.",
                            "Take --format peft or bundle, or another candidate with --candidate.")
    if _shapes.is_marked(source.trimmed.folder):
        raise TrimtuneError(f"--format merged: {source.row.candidate.trims_label} leaves layers in shapes that no config "
                            "of transformers can say, so plain transformers can't read them.",
                            "Allowed: candidates whose trims keep the architecture as its config describes it.",
                            "Take --format bundle, or one that an engine writes (onnx, openvino), or another candidate "
                            "with --candidate.")
    folder.mkdir()
    with Worker() as worker:
        worker.call(_write_merged, folder, source.trimmed.folder, source.result.study.task)
        worker.call(_write_tokenizer, folder, source.trimmed.folder, source.result.study.task)
    return _described(source, folder, gate_of(source).merged(source, folder, watch), "merged")


def _described(source: Source, folder: Path, hop: Any, format_: str) -> dict[str, Any]:
    (folder / CARD).write_text(plain_card.card(source, folder, hop, format_), encoding="utf-8")
    for path in folder.rglob("*.safetensors"):  # safetensors lets nobody but the user read them
        path.chmod((folder / CARD).stat().st_mode)
    return {"format": format_, "candidate": source.row.name, "files": listing(folder, hidden=True), "parity": [hop.model_dump()]}


def _write_tokenizer(folder: Path, source: Path, task: str) -> None:
    """The tokenizer; with the study's own chat template, since whoever loads it knows of no other."""
    from trimtune.ship import lm_answers

    tokenizer: Any = parts.load("task", task).load_tokenizer(source)
    if (source / READING).is_file() and (template := lm_answers.read(source)["template"]):
        tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)


def _write_merged(folder: Path, source: Path, task: str) -> None:
    from trimtune.trim import _model_folder

    module = parts.load("task", task)
    model: Any = module.load_model(source, merge=True)
    if (source / READING).is_file():
        _end_as_tuned(model, module, source)
    _model_folder.write(model, source, folder, task=module)


def _end_as_tuned(model: Any, task: ModuleType, source: Path) -> None:
    """Let `generate` stop where answers end, which a chat template may say otherwise than the base's own settings."""
    from trimtune.ship import lm_answers

    reading = lm_answers.read(source)
    if reading["kind"] != TEXT:
        model.generation_config.eos_token_id = sorted(task.ends(task.rendered(task.load_tokenizer(source), **reading)))
