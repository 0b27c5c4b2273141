"""Untuned model: the base as it came, asked as the tuned ones are; nothing is learned.

What tuning must beat: in perplexity of the test answers, and in what it says. Use it where it ties a tuned model; one that was
tuned by others to follow instructions often does. Not where answers need a form that prompts alone don't tell: it can't know the
end token and the style of your rows.

    logits_BTV of the pretrained weights, in PyTorch, float32; the same prompts, rendered alike

Source: "zero-shot" of Radford et al. 2019 (GPT-2), section 3, without a hint at the task in the prompt.
"""

from __future__ import annotations

from pathlib import Path

from trimtune.study.language import Split
from trimtune.tune.baselines._race import Speaker

TASKS = ("causal_lm",)


def speaker(train: Split, base: Path) -> Speaker:
    """The base model itself, all its bytes."""
    return Speaker(model=base, size_bytes=(base / "model.safetensors").stat().st_size)
