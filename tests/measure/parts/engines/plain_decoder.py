"""A language model in plain transformers and float32, for the tests of measuring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from pathlib import Path

TASKS = ("causal_lm",)


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


def available() -> str | None:
    return None


class Decoder:
    def __init__(self, model: Any) -> None:
        self.model, self.cache, self.mask_BT = model, None, np.zeros((0, 0), dtype=np.int64)

    @property
    def context(self) -> int:
        return int(self.model.config.max_position_embeddings)

    def logits(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        return self._run(ids_BT, mask_BT, False)

    def begin(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        self.cache, self.mask_BT = None, mask_BT
        return self._run(ids_BT, mask_BT, True)[:, -1]

    def step(self, tokens_B: np.ndarray) -> np.ndarray:
        self.mask_BT = np.pad(self.mask_BT, ((0, 0), (0, 1)), constant_values=1)
        return self._run(tokens_B[:, None], self.mask_BT, True)[:, -1]

    def cache_bytes(self) -> int:
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.cache.layers)

    def _run(self, ids_BT: np.ndarray, mask_BT: np.ndarray, cached: bool) -> np.ndarray:
        import torch

        places = (mask_BT.cumsum(axis=1) - 1).clip(0)[:, -ids_BT.shape[1]:]
        with torch.inference_mode():
            out = self.model(input_ids=torch.from_numpy(ids_BT), attention_mask=torch.from_numpy(mask_BT), use_cache=cached,
                             position_ids=torch.from_numpy(places), past_key_values=self.cache if cached else None)
        self.cache = out.past_key_values if cached else self.cache
        return out.logits.numpy()


def load(folder: Path, threads: int) -> Decoder:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    return Decoder(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval())
