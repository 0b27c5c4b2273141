"""A classifier small enough to be traced and compiled in a second or two, with the tokenizer of minilm."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import LABELS


def small_classifier(folder: Path, seed: int = 0) -> Path:
    """A model folder: a BERT of two layers with weights at random, large enough that its answers lie far apart."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from trimtune.study.model import locate
    from trimtune.tasks import text_classification as task

    tokenizer = task.load_tokenizer(locate("minilm"))
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
                        intermediate_size=128, max_position_embeddings=128, initializer_range=0.3,
                        id2label=dict(enumerate(LABELS)), pad_token_id=tokenizer.pad_token_id,
                        label2id={label: index for index, label in enumerate(LABELS)})
    torch.manual_seed(seed)
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
