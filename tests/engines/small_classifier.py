"""A classifier small enough to be traced and compiled in seconds, with the tokenizer of minilm."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import LABELS


def small_classifier(folder: Path, prefix: bool = False) -> Path:
    """A model folder: a BERT of one layer with weights at random, large enough that its answers lie far apart.

    Args:
        prefix: with 20 virtual tokens in `adapter/`.
    """
    import torch
    from peft import PrefixTuningConfig, get_peft_model
    from transformers import BertConfig, BertForSequenceClassification

    from trimtune.study.model import locate
    from trimtune.tasks import text_classification as task

    tokenizer = task.load_tokenizer(locate("minilm"))
    config = BertConfig(vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=1, num_attention_heads=4,
                        intermediate_size=128, max_position_embeddings=160, initializer_range=0.3,
                        id2label=dict(enumerate(LABELS)), pad_token_id=tokenizer.pad_token_id,
                        label2id={label: index for index, label in enumerate(LABELS)})
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if prefix:
        wrapped = get_peft_model(task.load_base(folder), PrefixTuningConfig(task_type=task.PEFT_TASK, num_virtual_tokens=20))
        wrapped.peft_config["default"].base_model_name_or_path = "small"  # and not the folder that it was read from
        wrapped.save_pretrained(str(folder / task.ADAPTER))
    return folder
