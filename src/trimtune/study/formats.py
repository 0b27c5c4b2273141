"""What a file of rows for a language model holds: by its columns' names, else by looking at the cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal

from trimtune.errors import TrimtuneError
from trimtune.records import DataSpec
from trimtune.study.columns import number
from trimtune.study.turns import listed

Kind = Literal["text", "pairs", "chat"]

CHAT = ("messages", "conversations", "conversation", "turns", "dialog", "dialogue", "chat")
PROMPT = ("prompt", "instruction", "question", "input", "source", "query", "mr", "context", "document", "article", "text")
COMPLETION = ("completion", "response", "output", "answer", "target", "reply", "ref", "reference", "summary", "chosen")
TEXT = ("text", "content", "body", "document", "story", "passage")


@dataclass(frozen=True)
class Format:
    """`columns`: of a text or a conversation the one, of pairs the prompt's and the completion's."""

    kind: Kind
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()


def choose(name: str, columns: Sequence[str], sample: Sequence[Sequence[Any]], spec: DataSpec) -> Format:
    """The format of a table.

    Args:
        name: of the file, for messages.
        sample: the first rows' cells.
        spec: what the study says about the columns, if it does.

    Raises:
        TrimtuneError: no such column, columns that don't go together, none that fits, or several that fit.
    """
    given = {key: value for key in ("text", "prompt", "completion", "messages") if (value := getattr(spec, key)) is not None}
    for key, column in given.items():
        if column not in columns:
            near = get_close_matches(column, columns, n=1)
            raise TrimtuneError(f"{name}: there is no column '{column}'.", f"Its columns: {', '.join(columns)}.",
                                f"Did you mean '{near[0]}'? " if near else f"Correct data.{key}.")
    allowed = "Allowed: text alone, messages alone, or prompt and completion."
    if ({*given} & {"prompt", "completion"} and len(given) != 2) or (len(given) > 1 and {*given} != {"prompt", "completion"}):
        raise TrimtuneError(f"data: {' and '.join(given)} {'is' if len(given) == 1 else 'are'} given.", allowed,
                            "Name the other column too." if len(given) == 1 else "Leave one out.")
    if len({*given.values()}) < len(given):
        raise TrimtuneError(f"data: the column '{spec.prompt}' is given as prompt and as completion.", allowed,
                            "Give two different columns.")
    if given:
        kind: Kind = "pairs" if "prompt" in given else "chat" if "messages" in given else "text"
        return Format(kind, tuple(given.values()))
    found, why = _seen(name, columns, sample)
    roles = {"text": ("text",), "pairs": ("prompt", "completion"), "chat": ("messages",)}[found.kind]
    said = ", ".join(f"{role} from column '{column}'" for role, column in zip(roles, found.columns, strict=True))
    unused = [column for column in columns if column not in found.columns]
    more = f"; not used: {', '.join(unused)}" if unused else ""
    return Format(found.kind, found.columns, (f"{found.kind}: {said} ({why}{more})",))


def _seen(name: str, columns: Sequence[str], sample: Sequence[Sequence[Any]]) -> tuple[Format, str]:
    lists = [column for index, column in enumerate(columns)
             if any(cells[index] is not None for cells in sample)
             and all(cells[index] is None or _turns(listed(cells[index])) for cells in sample)]
    chat = _first(CHAT, columns) or (lists[0] if len(lists) == 1 else None)
    if chat:
        return Format("chat", (chat,)), "by its name" if chat.lower() in CHAT else "its cells are lists of turns"
    completion = _first(COMPLETION, columns)
    prompt = _first(PROMPT, [column for column in columns if column != completion])
    if prompt and completion:
        return Format("pairs", (prompt, completion)), "by their names"
    words = [column for index, column in enumerate(columns)
             if any(isinstance(cells[index], str) and not number(cells[index]) for cells in sample)]
    text = _first(TEXT, columns)
    if text or len(words) == 1:
        return Format("text", (text or words[0],)), "by its name" if text else "the one column of words"
    if len(words) == 2:
        return Format("pairs", (words[0], words[1])), "the two columns of words, in their order"
    which = f"several columns could be the text ({', '.join(words)})" if words else "no columns could be the text"
    raise TrimtuneError(f"{name}: {which}.",
                        f"Its columns: {', '.join(columns)}. Known: messages; prompt and completion; text.",
                        "Say which: `data: {train: …, prompt: COLUMN, completion: COLUMN}`, or text, or messages.")


def _turns(cell: Any) -> bool:
    return isinstance(cell, list) and all(isinstance(turn, dict) for turn in cell)


def _first(names: Sequence[str], columns: Sequence[str]) -> str | None:
    lower = {column.strip().lower(): column for column in columns}
    return next((lower[name] for name in names if name in lower), None)
