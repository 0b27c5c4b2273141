"""The `show-batch` command: a language model's first rows as the model sees them, what is learned apart from what isn't."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.study import model, read
from trimtune.tasks._encoded import Encoded, encoded

_LEARNED, _SPECIAL, _REST = "bold green", "reverse", "dim"


def show(path: Path, count: int, console: Console) -> None:
    """Read a study's rows, encode all three splits, and print the first rows of the training split.

    Raises:
        TrimtuneError: as a run would raise for the same rows.
    """
    study = read.without_parts(path)
    part = parts.load("task", study.task)
    if not hasattr(part, "rendering"):
        raise TrimtuneError(f"{path}: the task {study.task} has no batches to show.",
                            "Its rows are whole texts, each with a label.", "`trimtune plan` shows how many there are of each.")
    folder = model.locate(study.model)
    tokenizer = part.load_tokenizer(folder)
    part.check_vocabulary(tokenizer, json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"])
    rows = part.rows.read(study.data, study.seed)
    rendering = part.rendering(tokenizer, study.data, rows.facts.kind)
    splits = {name: encoded(rendering, getattr(rows, name), study.fit.max_length, name) for name in rows.facts.rows}
    for note in [*rows.facts.notes, *rendering.words(), *(note for one in splits.values() for note in one.notes)]:
        console.print(Text(f"  - {note}"))
    for name, one in splits.items():
        tokens, learned = (sum(map(len, one.ids)), sum(map(sum, one.learned)))
        console.print(Text(f"{name}: {len(one):,} rows, {tokens:,} tokens ({tokens / len(one):.0f} a row), "
                           f"{learned:,} learned ({learned / tokens:.0%})"))
    marked = not console.is_terminal
    legend = Text("\nlearned: ").append("between « and »" if marked else "green", _LEARNED)
    console.print(legend.append("; special tokens as the model has them; ↵ is a line break"))
    for at in range(min(count, len(splits["train"]))):
        console.print(_row(splits["train"], at, tokenizer, marked), soft_wrap=True)


def _row(rows: Encoded, at: int, tokenizer: Any, marked: bool) -> Text:
    ids, learned = rows.ids[at], rows.learned[at]
    out = Text(f"\nrow {rows.numbers[at]}: {len(ids)} tokens, {sum(learned)} learned\n", style="")
    pieces = zip(texts(ids, tokenizer), learned, (token in tokenizer.all_special_ids for token in ids), strict=True)
    for counts, run in groupby(pieces, key=lambda piece: piece[1]):
        out.append("«" if marked and counts else "")
        for text, _, special in run:
            shown = text.replace("\n", "↵\n")
            out.append(shown, f"{_LEARNED if counts else _REST}{' ' + _SPECIAL if special else ''}")
        out.append("»" if marked and counts else "")
    return out


def texts(ids: Sequence[int], tokenizer: Any) -> list[str]:
    """The text that each token adds to those before it; a character of several tokens is shown with its last one."""
    found, said = [], ""
    for end in range(1, len(ids) + 1):
        whole = tokenizer.decode(ids[:end], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        done = whole.rstrip("\ufffd") if end < len(ids) else whole
        found.append(done[len(said):])
        said = done if len(done) > len(said) else said
    return found
