"""Nearest centroid: the class whose mean training row is nearest, in the pretrained model's features; nothing is trained.

It tells what the base knows without any tuning. Use it where classes come and go daily: a new one is a mean of its rows.
Not when classes differ in what the pretrained features don't show.

    f(x) = mean over the tokens of the last hidden state [T, D], scaled to length 1;  ŷ = argmax_c f(x) · μ_c / |μ_c|

Source: Mensink et al. 2013 (IEEE TPAMI 35, 2624-2637), the nearest class mean classifier. float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trimtune import parts
from trimtune.process import emit
from trimtune.study.data import Split
from trimtune.tune import batches
from trimtune.tune.baselines._race import Rule

if TYPE_CHECKING:
    import torch

TASKS = ("text_classification",)
_BATCH = 64


def fit(train: Split, validation: Split, classes: int, base: Path, task: str, max_length: int) -> Rule:
    """One unit vector per class, [C, D]; answering needs the base model beside them."""
    import torch

    part = parts.load("task", task)
    tokenizer, network = part.load_tokenizer(base), part.load_base(base, "sdpa").base_model.eval()

    def features(texts: Sequence[str]) -> torch.Tensor:
        """[N, D], each of length 1."""
        ids = tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
        found, done = torch.empty(len(ids), network.config.hidden_size), 0
        for batch in batches.by_length([len(row) for row in ids], _BATCH):
            inputs = batches.pad(ids, batch, tokenizer.pad_token_id)
            with torch.inference_mode():
                hidden_BTD = network(**inputs).last_hidden_state
            weights_BT1 = inputs["attention_mask"][..., None]
            found[batch] = torch.nn.functional.normalize((hidden_BTD * weights_BT1).sum(1) / weights_BT1.sum(1))
            done += len(batch)
            emit("progress", text="nearest centroid", done=done, total=len(ids))
        return found

    labels_N = torch.tensor(train.labels)
    sums_CD = torch.zeros(classes, network.config.hidden_size).index_add_(0, labels_N, features(train.texts))
    centroids_CD = torch.nn.functional.normalize(sums_CD)
    weights = sum(parameter.nbytes for parameter in network.parameters())
    return Rule(lambda texts: (features(texts) @ centroids_CD.T).argmax(1).tolist(), size_bytes=weights + centroids_CD.nbytes)
