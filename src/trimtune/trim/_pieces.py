"""A tokenizer with fewer pieces: which must stay so that texts of kept pieces are cut as before, and its files with new numbers.

    WordPiece   the longest piece that fits is taken: fewer pieces to choose from leave a kept choice as it is
    Unigram     the best sum of the pieces' scores is taken: the same
    BPE         neighbors are merged, the earliest merge of the list first: a kept piece needs all merges that can lead to it

In all three single characters stay, so what was spelled with dropped pieces is spelled with shorter ones.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.errors import TrimtuneError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    Pieces = dict[str, Any]
    """the `model` of a tokenizer.json"""

_FILE, _SETTINGS = "tokenizer.json", "tokenizer_config.json"
_KINDS = ("WordPiece", "Unigram", "BPE")
_UNUSUAL = ("ignore_merges", "end_of_word_suffix", "continuing_subword_prefix")
"""of BPE: words that are looked up whole, and pieces with marks; what they keep is not known here"""


def of(tokenizer: PreTrainedTokenizerBase) -> Pieces:
    """The tokenizer's pieces as its file holds them.

    Raises:
        TrimtuneError: the tokenizer is of a kind that can't be cut.
    """
    model: Pieces = json.loads(tokenizer.backend_tokenizer.to_str())["model"] if tokenizer.is_fast else {}
    kind = model.get("type") or type(tokenizer).__name__
    unusual = [name for name in _UNUSUAL if kind == "BPE" and model.get(name)]
    if kind in _KINDS and not unusual:
        return model
    raise TrimtuneError(f"prune_vocabulary: the model's tokenizer is of the kind {' with '.join([kind, *unusual])}.",
                        "Allowed: WordPiece (BERT, DistilBERT, ELECTRA …), Unigram (XLM-R …) and plain BPE (RoBERTa, GPT-2 …), "
                        "as tokenizer.json holds them.", "Leave prune_vocabulary out of `trim`, or use a model such as `minilm`.")


def numbers(pieces: Pieces) -> dict[str, int]:
    """Piece → id."""
    found = pieces["vocab"]
    return {piece: index for index, (piece, _) in enumerate(found)} if isinstance(found, list) else dict(found)


def closed(pieces: Pieces, wanted: Iterable[int]) -> set[int]:
    """The wanted ids, and those without which some text of wanted pieces would be cut otherwise, or some word not spelled."""
    vocabulary = numbers(pieces)
    prefix = pieces.get("continuing_subword_prefix") or "" if pieces["type"] == "WordPiece" else ""
    found = {*wanted, *_unspellable(vocabulary, prefix)}
    if pieces["type"] == "Unigram":
        lowest = min(range(len(vocabulary)), key=lambda index: pieces["vocab"][index][1])  # what an unknown character costs
        return found | {lowest} | {index for piece, index in vocabulary.items() if _is_byte(piece)}
    return found if pieces["type"] == "WordPiece" else _with_merges(pieces, vocabulary, found)


def renumber(folder: Path, number: Mapping[int, int]) -> None:
    """Leave only the pieces in `number` (old id → new id, in the same order) in the tokenizer files of `folder`."""
    whole = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    model = whole["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [piece for index, piece in enumerate(model["vocab"]) if index in number]
        model["unk_id"] = None if model.get("unk_id") is None else number[model["unk_id"]]
    else:
        model["vocab"] = {piece: number[index] for piece, index in model["vocab"].items() if index in number}
    if model["type"] == "BPE":
        model["merges"] = [pair for pair in map(_pair, model["merges"]) if {*pair, "".join(pair)} <= set(model["vocab"])]
    for token in whole["added_tokens"]:
        token["id"] = number[token["id"]]
    if whole.get("padding"):
        whole["padding"]["pad_id"] = number[whole["padding"]["pad_id"]]
    _renumber_template(whole.get("post_processor") or {}, number)
    (folder / _FILE).write_text(json.dumps(whole, ensure_ascii=False), encoding="utf-8")
    settings = json.loads((folder / _SETTINGS).read_text(encoding="utf-8"))
    if "added_tokens_decoder" in settings:
        settings["added_tokens_decoder"] = {str(number[int(index)]): token
                                            for index, token in settings["added_tokens_decoder"].items()}
        (folder / _SETTINGS).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _unspellable(vocabulary: Mapping[str, int], prefix: str) -> set[int]:
    """Ids of all single characters, at a word's start and behind it, and of pieces that these alone can't spell."""
    found = set()
    for piece, index in vocabulary.items():
        inside = bool(prefix) and piece.startswith(prefix) and piece != prefix
        characters = piece.removeprefix(prefix) if inside else piece
        spelled = [character if at == 0 and not inside else prefix + character for at, character in enumerate(characters)]
        if len(characters) == 1 or not all(one in vocabulary for one in spelled):
            found.add(index)
    return found


def _with_merges(pieces: Pieces, vocabulary: Mapping[str, int], wanted: set[int]) -> set[int]:
    """And the parts of every merge that leads to a wanted piece, and theirs."""
    parts: dict[str, list[str]] = defaultdict(list)
    for pair in map(_pair, pieces["merges"]):
        parts["".join(pair)] += pair
    found, ahead = set(wanted), [piece for piece, index in vocabulary.items() if index in wanted]
    while ahead:
        new = [part for part in parts[ahead.pop()] if vocabulary[part] not in found]
        found |= {vocabulary[part] for part in new}
        ahead += new
    return found


def _pair(merge: Any) -> list[str]:
    """Older files write a merge as one string."""
    return merge.split(" ") if isinstance(merge, str) else merge


def _is_byte(piece: str) -> bool:
    return len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")


def _renumber_template(processor: dict[str, Any], number: Mapping[int, int]) -> None:
    """The ids of what a post-processor puts around a row."""
    for inner in processor.get("processors", []):
        _renumber_template(inner, number)
    for token in processor.get("special_tokens", {}).values():
        token["ids"] = [number[index] for index in token["ids"]]
    for name in ("cls", "sep"):
        if name in processor:
            processor[name][1] = number[processor[name][1]]
