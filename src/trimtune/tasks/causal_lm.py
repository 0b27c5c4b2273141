"""Causal language models: the next token of a text, of a prompt's completion, or of an assistant's answers.

Loss: mean over the learned tokens of a batch of -log softmax(logits_BTV)[next token]. Which tokens are learned, and how
rows become tokens, is in `_rendering.py`; a study says `loss: all` under `data` to learn prompts too.

So far rows are read, rendered and shown (`trimtune show-batch`); no method fits language models yet.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trimtune.errors import TrimtuneError
from trimtune.records import DataSpec
from trimtune.study import language
from trimtune.study.text_file import lines, shown
from trimtune.tasks._rendering import Rendering

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

rows = language
"""the module that reads the rows of this task"""
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The model's own tokenizer; rows are padded on the right, by place and not by a token.

    Raises:
        TrimtuneError: it has none, or one that can't be read.
    """
    from transformers import AutoTokenizer

    try:
        if not any((folder / name).is_file() for name in _TOKENIZERS):  # transformers would make an empty one up
            raise OSError("no " + ", ".join(_TOKENIZERS))
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise TrimtuneError(f"model: {folder} has no tokenizer that can be read ({str(error).splitlines()[0]}).",
                            "Its folder must hold tokenizer.json and tokenizer_config.json.",
                            "Save it there with tokenizer.save_pretrained(folder).") from None
    return tokenizer


def rendering(tokenizer: PreTrainedTokenizerBase, spec: DataSpec, kind: str) -> Rendering:
    """How a study's rows become tokens: with its own template, else with the tokenizer's, else without one."""
    if spec.template:
        template = "".join(lines(Path(spec.template)))
        if "messages" not in template:
            raise TrimtuneError(f"data.template: {shown(Path(spec.template))} doesn't mention `messages`.",
                                "A chat template is Jinja over `messages`, each with role and content.", "Give another file.")
        return Rendering(tokenizer, kind, template, spec.loss)
    own = tokenizer.chat_template
    return Rendering(tokenizer, kind, own if isinstance(own, str) and kind != "text" else "", spec.loss)


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    """Refuse a tokenizer with tokens that the model doesn't know.

    Args:
        size: rows of the model's token embedding.
    """
    if len(tokenizer) > size:
        raise TrimtuneError(f"model: its tokenizer has {len(tokenizer):,} tokens, its embedding {size:,} rows.",
                            "Each token needs a row.", "Use the tokenizer that the model was made with, or resize the embedding.")
