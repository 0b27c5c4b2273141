"""A smaller model than minilm: its first layers, as a folder of their own."""

from __future__ import annotations

from pathlib import Path


def first_layers(folder: Path, layers: int) -> Path:
    """minilm with so many of its six layers."""
    from transformers import AutoModel, AutoTokenizer

    from trimtune.study.model import locate

    model = AutoModel.from_pretrained(locate("minilm"), num_hidden_layers=layers)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(locate("minilm")).save_pretrained(folder)
    return folder
