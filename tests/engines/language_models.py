"""Model folders of small language models, as each method leaves them; every adapter is random and far from nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trimtune import parts
from trimtune.engines._decoding import Decoder, padded
from trimtune.store import link_tree

BASES = ("llama", "gpt2")
"""stories260K beside the checkout, and the GPT-2 of this file"""
KINDS = ("full", "lora", "ia3", "prefix", "prompt", "p_tuning")
CONFIGS: dict[str, dict[str, Any]] = {"prefix": {"virtual_tokens": 5}, "prompt": {"virtual_tokens": 5},
                                      "p_tuning": {"virtual_tokens": 5}}
SPREAD = {"lora_B": 0.2, "prompt_encoder.default.embedding": 1.0}
"""standard deviation of what a method starts at nothing, or near it"""
VOCABULARY, POSITIONS = 512, 64
PROMPTS = [[1, 403, 407, 261, 378], [1], [1, 410, 263, 300, 281, 30, 77, 411, 290, 265, 12], [9, 8]]
NEW = 12
"""tokens of an answer"""


def small_gpt2(folder: Path) -> Path:
    """A GPT-2 of two layers whose weights are large enough that its logits differ by whole units, and a tokenizer of words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=VOCABULARY, n_positions=POSITIONS, n_embd=32, n_layer=2, n_head=4, initializer_range=0.4,
                        bos_token_id=0, eos_token_id=1)
    GPT2LMHeadModel(config).save_pretrained(folder)
    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "<unk>": 2, "a": 3, "b": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>").save_pretrained(folder)
    return folder


def tuned_folder(base: Path, kind: str, folder: Path) -> Path:
    """What `kind` would leave of a base, with random values in the place of learned ones."""
    import torch

    from trimtune.tasks import causal_lm

    link_tree(base, folder)
    torch.manual_seed(KINDS.index(kind))
    method = parts.load("method", kind)
    model: Any = method.prepare(causal_lm.load_base(folder, "sdpa"), method.Config(**CONFIGS.get(kind, {})), "CAUSAL_LM")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if kind in ("full", "ia3") and parameter.requires_grad:
                parameter *= 1 + 0.3 * torch.randn_like(parameter)
            for part, std in SPREAD.items():
                if part in name:
                    torch.nn.init.normal_(parameter, std=std)
    if kind == "full":
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder)
    else:
        model.active_peft_config.base_model_name_or_path = "the base"  # a fit writes the study's word for it, not a folder
        model.save_pretrained(str(folder / causal_lm.ADAPTER))
    return folder


def alone(decoder: Decoder, row: list[int]) -> np.ndarray:
    """Logits [T, V] of one row in one pass, without padding and without a cache."""
    logits_TV: np.ndarray = decoder.logits(*padded([row], left=False))[0]
    return logits_TV
