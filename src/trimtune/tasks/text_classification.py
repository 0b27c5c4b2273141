"""Text classification: one label per row of text.

Loss: mean over rows of -w[label] · log softmax(logits_BC)[label], all w = 1 unless the study asks for balanced classes:
w[c] = rows / (classes · rows of c), whose mean over the training rows is 1. Metric: accuracy. Head: the model's own
sequence classification head of transformers (for BERT: pooled first token → dropout → linear to C labels).

A *model folder* is what every step after the base hands on: `config.json`, `model.safetensors`, tokenizer files, and, if
the method left something beside the weights, `adapter/` in PEFT's own format (head included).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.errors import TrimtuneError
from trimtune.records import Study
from trimtune.store import write_new
from trimtune.study import data
from trimtune.tasks import _pretrained
from trimtune.tasks._inputs import Inputs

if TYPE_CHECKING:
    import numpy as np
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

rows = data
"""the module that reads the rows of this task"""
ADAPTER = _pretrained.ADAPTER
PEFT_TASK = "SEQ_CLS"
METRIC = "accuracy"
"""what fits are chosen by, on validation rows: the share of rows answered right"""
AUTO_CLASS = "AutoModelForSequenceClassification"
HEADS = ("classifier", "score", "classification_head")
"""what transformers calls the head, by architecture"""
_EXAMPLE = """\
inputs = tokenizer(["a text", "another"], padding=True, truncation=True, max_length={max_length}, return_tensors="pt")
answers = [model.config.id2label[index] for index in model.eval()(**inputs).logits.argmax(-1).tolist()]"""


def describe_base(folder: Path, labels: Sequence[str]) -> None:
    """Write the labels into `folder/config.json`, so that any loader builds a head of the right size."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["id2label"] = {str(index): label for index, label in enumerate(labels)}
    config["label2id"] = {label: index for index, label in enumerate(labels)}
    config.pop("num_labels", None)
    write_new(folder / "config.json", json.dumps(config, indent=1))


def complete(folder: Path) -> list[str]:
    """Give a model folder the weights that its checkpoint lacks beside the head (a pooler, say), drawn once from seed 0.

    So every step finds the same ones. Returns their names; the head itself is left to each fit's own seed, and one that was made
    for another count of labels is left out.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    model, found = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype="float32", use_safetensors=True, trust_remote_code=False, output_loading_info=True,
        ignore_mismatched_sizes=True)
    lacking = sorted(name for name in found["missing_keys"] if name.split(".")[0] not in HEADS)
    other = [str(each[0]) for each in found["mismatched_keys"]]
    if unlike := [name for name in other if name.split(".")[0] not in HEADS]:
        raise TrimtuneError(f"model: weights in {folder} have other shapes than its config says: {', '.join(unlike[:3])}.",
                            "They must be those of one model.", "Save the model again with model.save_pretrained(folder).")
    if lacking or other:
        kept = {name: value for name, value in model.state_dict().items() if name.split(".")[0] not in HEADS}
        (folder / "model.safetensors").unlink()  # a hard link into somewhere else
        model.save_pretrained(folder, state_dict=kept)
    return lacking


def load_base(folder: Path, attention: str = "eager") -> PreTrainedModel:
    """The model of a model folder without its adapter, in float32; a head that isn't there is drawn from torch's RNG."""
    from transformers import AutoModelForSequenceClassification

    return _pretrained.load_base(
        AutoModelForSequenceClassification, folder, attention, "text classification",
        "Allowed: an architecture with a sequence classification head in transformers (BERT-like, GPT-like).",
        "Choose an encoder such as `minilm`.")


def load_model(folder: Path, attention: str = "sdpa", merge: bool = True) -> torch.nn.Module:
    """The whole model of a model folder: float32, eval mode, `model(input_ids, attention_mask).logits` is [B, C].

    `merge` folds an adapter into the weights where it can be folded (LoRA); prefixes and prompts stay beside them.
    """
    return _pretrained.with_adapter(load_base(folder, attention), folder, merge)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def example(folder: Path, max_length: int) -> str:
    """How someone with transformers alone asks the loaded `model` of a tuned folder with its `tokenizer`."""
    return _EXAMPLE.format(max_length=max_length)


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> dict[str, np.ndarray]:
    """`input_ids` and `attention_mask`, int64 [B, T]; T is the longest row's length, at most `max_length`."""
    found = tokenizer(list(texts), truncation=True, max_length=max_length, padding=True, return_tensors="np",
                      return_token_type_ids=False)
    return {name: found[name].astype("int64") for name in ("input_ids", "attention_mask")}


def reading(study: Study, kind: str) -> dict[str, Any]:
    """What of the study decides how rows become tokens, beside `max_length`: nothing."""
    return {}


def inputs(tokenizer: PreTrainedTokenizerBase, split: data.Split, max_length: int, name: str = "") -> Inputs:
    """The rows' tokens, cut at `max_length`, and the index of each row's label."""
    ids = tokenizer(split.texts, truncation=True, max_length=max_length)["input_ids"]
    return Inputs(ids, split.labels, [1] * len(ids), tokenizer.pad_token_id)


def answered(model: torch.nn.Module, tokens: dict[str, torch.Tensor], labels: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [B, C] and labels [B], where the model lies."""
    import torch

    logits = model(**tokens).logits
    return logits, torch.tensor(labels, device=logits.device)


def score(logits_BC: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
    """How many rows are answered right; NaN if a logit is no number."""
    right = (logits_BC.argmax(-1) == labels_B).sum().float()
    return right.where(logits_BC.isfinite().all(), right.new_tensor(float("nan")))


def metric(score_: float) -> float:
    """A mean score as the metric that users know: the accuracy itself."""
    return score_


def loss_of(class_weights_: str, splits: data.Rows) -> Callable[..., torch.Tensor]:
    """The loss of a fit, its classes weighted by their frequency in the training rows if asked for."""
    return partial(loss, weights_C=class_weights(class_weights_, splits.train.labels, len(splits.facts.labels)))


def loss(logits_BC: torch.Tensor, labels_B: torch.Tensor, weights_C: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over the rows of the weighted cross-entropy, computed in float32.

    It is divided by the rows, not by their weights as torch's own mean would: a batch of rare rows then counts for more.
    """
    import torch

    weights = None if weights_C is None else weights_C.to(logits_BC.device)
    return torch.nn.functional.cross_entropy(logits_BC.float(), labels_B, weight=weights, reduction="none").mean()


def class_weights(kind: str, labels: Sequence[int], classes: int) -> torch.Tensor | None:
    """float32 [C] for `balanced`; None for `none`. The mean over the rows is 1, so learning rates keep their meaning."""
    import torch

    if kind == "none":
        return None
    return len(labels) / (classes * torch.bincount(torch.tensor(labels), minlength=classes).clamp_min(1).float())
