"""A classifier small enough to be traced and compiled in seconds, with the tokenizer of minilm."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import LABELS, leave_adapter


def small_classifier(folder: Path, kind: str = "full", layers: int = 1) -> Path:
    """A model folder: a narrow BERT with weights at random, large enough that its answers lie far apart.

    Args:
        kind: how it was tuned: of `lora`, `prefix` and `prompt` a random adapter lies in `adapter/`.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from trimtune.study.model import locate
    from trimtune.tasks import text_classification as task

    tokenizer = task.load_tokenizer(locate("minilm"))
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=layers, num_attention_heads=4,
                        intermediate_size=128, max_position_embeddings=160, initializer_range=0.3,
                        id2label=dict(enumerate(LABELS)), pad_token_id=tokenizer.pad_token_id,
                        label2id={label: index for index, label in enumerate(LABELS)})
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if kind != "full":
        leave_adapter(task.load_base(folder), kind, folder, {"lora_B": 0.2})
    return folder
