"""Cells as turns of a conversation, each checked, each fault told with its row."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from trimtune.errors import TrimtuneError
from trimtune.study.check import kind_of, quoted

TEXT, SYSTEM, USER, ASSISTANT = "text", "system", "user", "assistant"
KEYS = (("role", "content"), ("from", "value"))
"""OpenAI's names and ShareGPT's"""
_SHAREGPT = {"human": USER, "gpt": ASSISTANT}
_BROKEN = re.compile("[\0\ud800-\udfff]")
_EXAMPLE = '[{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'


class Turn(NamedTuple):
    role: str
    content: str


Row = tuple[Turn, ...]


def of(cells: Sequence[Any], columns: Sequence[str], kind: str, at: str) -> Row:
    """The turns of one row.

    Args:
        kind: `text`, `pairs` or `chat`.
        at: the row's place, for messages.

    Raises:
        TrimtuneError: an empty or broken cell, or turns that are no conversation.
    """
    if kind == "chat":
        return _conversation(cells[0], columns[0], at)
    roles = (TEXT,) if kind == "text" else (USER, ASSISTANT)
    return tuple(Turn(role, _text(cell, f"column '{column}'", at))
                 for role, cell, column in zip(roles, cells, columns, strict=True))


def as_text(row: Row) -> str:
    """Turns as one text: one turn's content, or each turn behind its role."""
    return row[0].content if len(row) == 1 else "\n".join(f"{turn.role}: {turn.content}" for turn in row)


def listed(cell: Any) -> Any:
    """A conversation's cell as a list, if it is one or holds one as JSON (as CSV files do)."""
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    return cell


def _text(cell: Any, what: str, at: str) -> str:
    if isinstance(cell, (int, float)) and not isinstance(cell, bool) and cell == cell:
        cell = str(int(cell) if float(cell).is_integer() else cell)
    if cell is None or cell != cell or (isinstance(cell, str) and not cell.strip()):
        raise TrimtuneError(f"{at}: {what} is empty.", "A prompt, an answer and a text need words.",
                            "Fill it in, or remove the row.")
    if not isinstance(cell, str):
        raise TrimtuneError(f"{at}: {what} is {kind_of(cell)}: {quoted(cell)}.", "Allowed: text.",
                            "Correct it, or name other columns in `data`.")
    if _BROKEN.search(cell):
        raise TrimtuneError(f"{at}: {what} holds a NUL or half a surrogate.", "Each text must be valid Unicode.",
                            "Was an emoji cut in two? Export the file again.")
    return cell


def _conversation(cell: Any, column: str, at: str) -> Row:
    given = listed(cell)
    if not isinstance(given, list):
        what = "is empty" if given is None or given == "" else f"is no list of turns: {quoted(given)}"
        raise TrimtuneError(f"{at}: column '{column}' {what}.", f"Allowed: {_EXAMPLE}.", "Correct the row, or remove it.")
    if not given:
        raise TrimtuneError(f"{at}: column '{column}' holds no turn.", f"Allowed: {_EXAMPLE}.", "Fill it in, or remove the row.")
    row = tuple(_turn(turn, f"{at}: turn {number}") for number, turn in enumerate(given, 1))
    _check_order(row, at)
    return row


def _turn(given: Any, at: str) -> Turn:
    if not isinstance(given, dict):
        raise TrimtuneError(f"{at} is {kind_of(given)}: {quoted(given)}.", f"Allowed: {_EXAMPLE}.", "Write it as a mapping.")
    keys = next((keys for keys in KEYS if all(key in given for key in keys)), None)
    if keys is None:
        raise TrimtuneError(f"{at} has the keys {', '.join(map(str, given)) or '(none)'}.",
                            "Each turn needs role and content (or from and value).", f"Write it as in {_EXAMPLE}.")
    role, content = given[keys[0]], given[keys[1]]
    name = _SHAREGPT.get(str(role).lower(), str(role).lower())
    if name not in (SYSTEM, USER, ASSISTANT):
        raise TrimtuneError(f"{at} has the role {quoted(role)}.", f"Allowed: {SYSTEM}, {USER} and {ASSISTANT}.",
                            "Correct it; calls of tools are not supported.")
    return Turn(name, _text(_joined(content, at), "its content", at))


def _joined(content: Any, at: str) -> Any:
    """A content that comes in parts, as one text."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in content]
    if not all(isinstance(text, str) for text in texts):
        raise TrimtuneError(f"{at} has parts that are no text.", 'Allowed: text, or parts such as {"type": "text", "text": "…"}.',
                            "Leave images and sounds out.")
    return "".join(str(text) for text in texts)


def _check_order(row: Row, at: str) -> None:
    order = f"Allowed: an optional {SYSTEM} first, then {USER} and {ASSISTANT} by turns, an answer of the {ASSISTANT} last."
    for number, turn in enumerate(row, 1):
        before = row[number - 2].role if number > 1 else None
        if turn.role == SYSTEM and before is not None:
            raise TrimtuneError(f"{at}: turn {number} is the {SYSTEM}'s, after another.", order, "Move it to the beginning.")
        if turn.role == ASSISTANT and before in (None, SYSTEM):
            raise TrimtuneError(f"{at}: turn {number} is the {ASSISTANT}'s, and nobody has asked.", order,
                                f"Begin with a turn of the {USER}, or remove it.")
        if turn.role == before:
            raise TrimtuneError(f"{at}: turns {number - 1} and {number} are both the {turn.role}'s.", order,
                                "Join the two, or add what is lacking between them.")
    if row[-1].role != ASSISTANT:
        raise TrimtuneError(f"{at}: the last turn is the {row[-1].role}'s, so there is no answer to learn.", order,
                            "Add the answer, or remove the row.")
