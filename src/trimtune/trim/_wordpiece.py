"""A WordPiece tokenizer with fewer pieces: what must stay, and its files with the rest renumbered."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.errors import TrimtuneError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FILE, _SETTINGS = "tokenizer.json", "tokenizer_config.json"


def pieces(tokenizer: PreTrainedTokenizerBase) -> tuple[dict[str, int], str]:
    """Every piece and its id, and what continues a word (`##`).

    Raises:
        TrimtuneError: the tokenizer is of another kind.
    """
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"] if tokenizer.is_fast else {}
    if model.get("type") != "WordPiece":
        kind = model.get("type") or type(tokenizer).__name__
        raise TrimtuneError(f"prune_vocabulary: the model's tokenizer is of the kind {kind}.",
                            "Allowed: WordPiece (BERT, DistilBERT, ELECTRA, MPNet …), whose pieces stand each for itself.",
                            "Leave prune_vocabulary out of `trim`, or use a model such as `minilm`.")
    return model["vocab"], model["continuing_subword_prefix"]


def needed(vocabulary: Mapping[str, int], prefix: str) -> set[int]:
    """Ids of all single characters, at a word's start and behind it, and of pieces that these alone can't spell.

    So whatever was spelled with dropped pieces is spelled with what stays.
    """
    found = set()
    for piece, index in vocabulary.items():
        inside = piece.startswith(prefix) and piece != prefix
        characters = piece.removeprefix(prefix) if inside else piece
        spelled = [character if at == 0 and not inside else prefix + character for at, character in enumerate(characters)]
        if len(characters) == 1 or not all(one in vocabulary for one in spelled):
            found.add(index)
    return found


def renumber(folder: Path, number: Mapping[int, int]) -> None:
    """Rewrite the tokenizer files in `folder` so that only the pieces in `number` (old id → new id) are left."""
    whole = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    model = whole["model"]
    model["vocab"] = {piece: number[index] for piece, index in model["vocab"].items() if index in number}
    for token in whole["added_tokens"]:
        token["id"] = number[token["id"]]
    if whole.get("padding"):
        whole["padding"]["pad_id"] = number[whole["padding"]["pad_id"]]
    _renumber_template(whole.get("post_processor"), number)
    (folder / _FILE).write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    if "added_tokens_decoder" in settings:
        settings["added_tokens_decoder"] = {str(number[int(index)]): token
                                            for index, token in settings["added_tokens_decoder"].items()}
        (folder / _SETTINGS).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _renumber_template(processor: dict[str, Any] | None, number: Mapping[int, int]) -> None:
    """The ids of what a post-processor puts around a row."""
    for inner in (processor or {}).get("processors", []):
        _renumber_template(inner, number)
    for token in (processor or {}).get("special_tokens", {}).values():
        token["ids"] = [number[index] for index in token["ids"]]
    for name in ("cls", "sep"):
        if name in (processor or {}):
            processor[name][1] = number[processor[name][1]]  # type: ignore[index]
