"""A tokenizer inside a GGUF file, so that llama.cpp makes the same tokens of a text as transformers does.

What trimtune runs feeds token ids and never asks it; everybody else's runtime does. Two kinds can be said in such a file:

    "gpt2"    byte-level BPE: pieces, merges by rank, and the name of the rule that cuts a text into words
    "llama"   BPE over characters with a token for each byte, as SentencePiece makes it: pieces and scores (-the merge's rank)

Any other becomes "none": the file has ids and no text, and the facts say so. Names of cutting rules stand for the very
expressions below; another expression is not guessed at.
"""

from __future__ import annotations

import json
from typing import Any

_WORDS = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
_CUTS = {("words",): "gpt-2", ("digits", "words"): "smollm", (_WORDS % "{1,3}", "bytes"): "llama-bpe",
         (_WORDS % "", "bytes"): "qwen2"}
"""steps of a tokenizer's pre_tokenizer → llama.cpp's name for them"""
_NORMAL, _UNKNOWN, _CONTROL, _ADDED, _UNUSED, _BYTE = range(1, 7)
"""llama.cpp's types of tokens"""
_BYTES = frozenset(f"<0x{value:02X}>" for value in range(256))
_NEVER = -1e6
"""the score of a piece that no merge makes"""
TEXTS = ("Once upon a time, there was a little girl named Lily.", "Prices: 3.99, 12 and 1,234,567 units in 2026!",
         "a  b   c    d", " leading and trailing ", "It's what we'll do; they'd said \"no\" (twice).",
         "Crème brûlée, naïve, Zürich, señor", "two\nlines\n\nand a gap", "\ttabs\tand spaces  \t",
         "snake_case camelCase x+=1; // done", "привет, мир", "数字と漢字", "🙂 ok 👍🏽",
         "ALL CAPS, 100%", "https://example.org/a?b=1&c=2", "don't stop… «quoted» – dash", "x", "1", "Straße № 5½")
"""what both are asked: digits, punctuation, accents, runs of spaces, scripts that a small vocabulary doesn't know"""


def add(writer: Any, tokenizer: Any, size: int, template: str) -> dict[str, Any]:
    """Add tokens, special tokens and the chat template to a file that is being written.

    Args:
        writer: a gguf.GGUFWriter.
        size: rows of the model's embedding; ids beyond the tokenizer's are written as unused.

    Returns:
        facts: `tokenizer` (its kind in the file) and, if that is "none", `tokenizer_lacks` (why).
    """
    parsed = json.loads(tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else {}
    model, lacks = _kind(parsed)
    writer.add_tokenizer_model(model)
    if template:
        writer.add_chat_template(template)
    if model == "none":
        return {"tokenizer": model, "tokenizer_lacks": lacks}
    writer.add_tokenizer_pre(_CUTS[_steps(parsed)] if model == "gpt2" else "default")
    pieces, types = _pieces(parsed, tokenizer, size)
    writer.add_token_list(pieces)
    writer.add_token_types(types)
    merges = [tuple(pair.split(" ", 1)) if isinstance(pair, str) else tuple(pair) for pair in parsed["model"]["merges"]]
    if model == "gpt2":
        writer.add_token_merges([" ".join(pair) for pair in merges])
    else:
        rank: dict[str, int] = {}
        for place, pair in enumerate(merges):
            rank.setdefault("".join(pair), place)
        writer.add_token_scores([-float(rank[piece]) if piece in rank else _NEVER for piece in pieces])
        writer.add_add_space_prefix(tokenizer.tokenize("a")[0].startswith("▁"))
    _special(writer, tokenizer)
    return {"tokenizer": model}


def agreement(tokenizer: Any, found: list[list[int]]) -> float:
    """The share of TEXTS of which llama.cpp made these very tokens."""
    wanted = [list(tokenizer(text)["input_ids"]) for text in TEXTS]
    return round(sum(one == other for one, other in zip(wanted, found, strict=True)) / len(TEXTS), 3)


def _kind(parsed: dict[str, Any]) -> tuple[str, str]:
    """The kind that a GGUF file has for a tokenizer, and for "none" why."""
    model = parsed.get("model", {})
    if model.get("type") != "BPE" or not model["merges"]:
        return "none", f"it is no BPE with merges but {model.get('type', 'a tokenizer in Python')}"
    if model.get("byte_fallback"):
        lacking = _BYTES - model["vocab"].keys()
        return ("none", f"it has no piece {min(lacking)}") if lacking else ("llama", "")
    if _steps(parsed) in _CUTS:
        return "gpt2", ""
    return "none", "llama.cpp knows no rule that cuts texts into words as this one does"


def _steps(parsed: dict[str, Any]) -> tuple[str, ...]:
    """A pre_tokenizer in short: `words` (GPT-2's own rule), `digits` (each by itself), `bytes` (no rule), or an expression."""
    whole = parsed.get("pre_tokenizer") or {}
    return tuple(map(_step, whole["pretokenizers"] if whole.get("type") == "Sequence" else [whole]))


def _step(step: dict[str, Any]) -> str:
    if step.get("type") == "ByteLevel" and not step["add_prefix_space"]:
        return "words" if step["use_regex"] else "bytes"
    if step.get("type") == "Digits" and step["individual_digits"]:
        return "digits"
    if step.get("type") == "Split" and step["behavior"] == "Isolated" and not step["invert"]:
        return str(step["pattern"].get("Regex"))
    return f"unknown: {step.get('type')}"


def _pieces(parsed: dict[str, Any], tokenizer: Any, size: int) -> tuple[list[str], list[int]]:
    """The text and the type of each id."""
    pieces, types = [f"[unused {index}]" for index in range(size)], [_UNUSED] * size
    for piece, index in parsed["model"]["vocab"].items():
        pieces[index], types[index] = piece, _BYTE if parsed["model"].get("byte_fallback") and piece in _BYTES else _NORMAL
    for index, token in tokenizer.added_tokens_decoder.items():
        pieces[index], types[index] = token.content, _CONTROL if token.special else _ADDED
    if parsed["model"].get("byte_fallback") and tokenizer.unk_token_id is not None:
        types[tokenizer.unk_token_id] = _UNKNOWN
    return pieces, types


def _special(writer: Any, tokenizer: Any) -> None:
    """Ids of special tokens; whether a text begins and ends with them is what the tokenizer does, not what it says."""
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    for name, index in (("bos", begin), ("eos", end), ("unk", tokenizer.unk_token_id), ("pad", tokenizer.pad_token_id)):
        if index is not None:
            getattr(writer, f"add_{name}_token_id")(index)
    whole, bare = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (True, False))
    writer.add_add_bos_token(len(whole) > len(bare) and whole[0] == begin)
    writer.add_add_eos_token(len(whole) > len(bare) and whole[-1] == end)
