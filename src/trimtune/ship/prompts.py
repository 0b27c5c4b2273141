"""What a user asks a language model: a text, or a conversation, as the rows that it was tuned on have them."""

from __future__ import annotations

from typing import Any

from trimtune.errors import TrimtuneError
from trimtune.study import turns
from trimtune.study.turns import ASSISTANT, TEXT, USER, Row, Turn

_ANSWERED = (ASSISTANT, "gpt")


def prompt_of(given: Any, kind: str, at: str) -> Row:
    """The turns before the answer that is asked for.

    Args:
        given: a text (a number is one too); of a model of conversations also a list of turns, or one as JSON. An answer that
            stands last in it is left out: it is what is asked for.
        kind: of the model's rows.
        at: the prompt's place, for messages.

    Raises:
        TrimtuneError: neither a text nor a conversation.
    """
    role = TEXT if kind == "text" else USER
    said = turns.listed(given) if kind == "chat" else given
    if isinstance(given, str) and not (isinstance(said, list) and said and all(isinstance(turn, dict) for turn in said)):
        said = given  # "[1, 2, 3]" is something to say, not a conversation
    if isinstance(said, tuple) and said and all(isinstance(turn, Turn) for turn in said):
        return said
    if isinstance(said, list):
        if kind != "chat":
            raise TrimtuneError(f"{at} is a list.", f"This model was tuned on {'texts' if kind == 'text' else 'single prompts'}.",
                                "Give a text.")
        last = said[-1] if said and isinstance(said[-1], dict) else {}
        answered = str(last.get("role", last.get("from"))).lower() in _ANSWERED
        return turns.of([said if answered else [*said, {"role": ASSISTANT, "content": "…"}]], ["messages"], "chat", at)[:-1]
    if isinstance(said, str) and not said.strip():
        return (Turn(role, said),)
    return (Turn(role, turns.of([said], ["prompt"], "text", at)[0].content),)
