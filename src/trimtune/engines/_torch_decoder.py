"""Language models in PyTorch: one pass as in training, and decoding on a cache of keys and values.

`logits` is the very call of the fits, through PEFT where there is an adapter. With the cache, PEFT only hands out its virtual
tokens, and positions and masks are made here: PEFT drops position ids behind a prompt, which left padding needs.

    cache   [prefix P][padding][tokens]      positions   P, P + 1, … by counting tokens; padding counts nothing
    cache   [prompt P][padding][tokens]      positions   0 … P - 1, then the same

A sliding window goes by the place in the cache, so padding behind virtual tokens would push them out of it too early: where a
batch of unlike lengths grows wider than the window it is refused.
"""

from __future__ import annotations

import copy
import inspect
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.engines import _decoding, _few_bits_decoder, _few_bits_torch, _packed_torch, _sparse_torch
from trimtune.errors import TrimtuneError
from trimtune.tasks import _pretrained, _shapes, causal_lm
from trimtune.trim._model_folder import base_of, write
from trimtune.tune.precision import dtype

if TYPE_CHECKING:
    import numpy as np
    import torch

_TOLERANCE = 1e-3
_FEW = (*_few_bits_torch.STORED, "mixed")
"""numerics that `_few_bits_decoder` stores"""


class TorchDecoder:
    """A `_decoding.Decoder` of a transformers model, or of a PEFT model around one, in eval mode."""

    def __init__(self, module: torch.nn.Module) -> None:
        from peft import PeftModel

        self._module: Any = module
        self._base: Any = base_of(module)
        settings: Any = module.active_peft_config if isinstance(module, PeftModel) else None
        self.virtual: int = settings.num_virtual_tokens if settings and settings.is_prompt_learning else 0
        config = self._base.config
        self._positions = positions_of(module)
        self._window: int | None = window_of(config) if self.virtual else None
        self._takes = inspect.signature(self._base.forward).parameters
        self._cache: Any = None
        self._mask_BS: Any = None

    @property
    def context(self) -> int:
        return self._positions - self.virtual

    def logits(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> Any:
        import torch

        with torch.inference_mode():
            out = self._module(input_ids=torch.from_numpy(ids_BT), attention_mask=torch.from_numpy(mask_BT), use_cache=False)
            return out.logits[:, -ids_BT.shape[1]:].float().numpy()

    def begin(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> Any:
        import torch
        from transformers import Cache, DynamicCache

        ids, batch = torch.from_numpy(ids_BT), len(ids_BT)
        given = {"input_ids": ids}
        with torch.inference_mode():
            self._mask_BS = torch.cat([torch.ones(batch, self.virtual, dtype=torch.long), torch.from_numpy(mask_BT)], 1)
            self._cache = DynamicCache(config=self._base.config)
            if self.virtual:
                start = self._module.get_prompt(batch_size=batch)
                if isinstance(start, Cache):
                    self._cache = start
                else:
                    embedded_BTD = self._module.word_embeddings(ids)
                    given = {"inputs_embeds": torch.cat([start.to(embedded_BTD.dtype), embedded_BTD], 1)}
            return self._last(**given)

    def step(self, tokens_B: np.ndarray) -> Any:
        import torch

        with torch.inference_mode():
            self._mask_BS = torch.nn.functional.pad(self._mask_BS, (0, 1), value=1)
            return self._last(input_ids=torch.from_numpy(tokens_B)[:, None])

    def cache_bytes(self) -> int:
        layers = self._cache.layers if self._cache else ()
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in layers if layer.is_initialized)

    def _last(self, **given: torch.Tensor) -> Any:
        """Logits [B, V] after the last of the given tokens, which join the cache.

        Raises:
            TrimtuneError: padding, virtual tokens and a window that is narrower than both with the tokens.
        """
        (tokens,), width = given.values(), self._mask_BS.shape[1]
        if self._window and width > self._window and not self._mask_BS.all():
            raise TrimtuneError(f"torch_eager: prompts of unlike lengths were given, {width} tokens wide with virtual tokens.",
                                f"Behind virtual tokens, this model's window of {self._window} tokens allows one length only.",
                                "Ask one prompt at a time.")
        # rows that have ended are fed on with the others, beyond the last position perhaps
        positions_BS = (self._mask_BS.cumsum(1) - 1).clamp(0, self._positions - 1)
        known = {"position_ids": positions_BS[:, -tokens.shape[1]:], "logits_to_keep": 1}
        out = self._base(**given, attention_mask=self._mask_BS, past_key_values=self._cache, use_cache=True,
                         **{name: value for name, value in known.items() if name in self._takes})
        return out.logits[:, -1].float().numpy()


def positions_of(module: torch.nn.Module) -> int:
    """Tokens that a model can hold, with virtual ones."""
    return getattr(base_of(module).config, "max_position_embeddings", None) or sys.maxsize


def window_of(config: Any) -> int | None:
    """Tokens that each token of a model sees at most; None: all before it."""
    found: int | None = getattr(config, "sliding_window", None) or getattr(config, "window_size", None)
    return found


def export(folder: Path, source: Path, precision: str, max_length: int) -> dict[str, Any]:
    """Write config, weights, adapter and tokenizer; facts: `precision`, `difference` (|Δlogit| between decoding with the cache
    in it and passes without one in float32) and `milliseconds` [a prefill, 8 tokens after it] of what was timed.

    Raises:
        StepFailed: an architecture that can't be decoded so.
    """
    module: Any = causal_lm.load_model(source)
    decoder, vocabulary = TorchDecoder(module), base_of(module).config.vocab_size
    difference = _decoding.check(decoder, decoder, vocabulary, _TOLERANCE, "torch_eager")
    milliseconds: dict[str, list[float]] = {}
    if precision != "fp32":
        decoders = {"fp32": decoder, "bf16": TorchDecoder(cast(copy.deepcopy(module), "bf16"))}
        if precision == "auto":
            precision, milliseconds = _decoding.fastest(decoders, vocabulary, max_length)
        if precision == "bf16":
            difference = _decoding.check(decoders["bf16"], decoder, vocabulary, sys.float_info.max, "torch_eager")
    write(cast(module, precision), source, folder, task=causal_lm)
    return {"precision": precision, "difference": difference, "milliseconds": milliseconds}


def load(folder: Path, precision: str, sparse: bool = False) -> TorchDecoder:
    """The decoder of a runnable folder; the weights are read in the format that they are stored in, and never in another.

    Args:
        sparse: whether they are stored without their zeros.
    """
    from transformers import AutoModelForCausalLM as Auto

    model = (_shapes.filled(Auto, folder, _sparse_torch.state_of(folder), None, dtype(precision)) if sparse
             else _shapes.read(Auto, folder, None, dtype(precision)))
    return TorchDecoder(cast(_pretrained.with_adapter(model, folder, merge=False), precision))


def export_packed(folder: Path, source: Path, numerics: str) -> dict[str, Any]:
    """Write the model in int8, int4, binary, ternary or mixed; facts: `matrices` that were packed, `difference` to the float32
    model; of the last three `bits_per_weight` too, of mixed what runs as well.

    Raises:
        StepFailed: an architecture that can't be decoded with a cache.
        TrimtuneError: one without plain linear layers.
    """
    decoder = TorchDecoder(causal_lm.load_model(source))
    vocabulary = base_of(decoder._module).config.vocab_size
    _decoding.check(decoder, decoder, vocabulary, _TOLERANCE, "torch_eager")
    facts = (_few_bits_decoder.write(decoder._module, source, folder, numerics) if numerics in _FEW
             else {"matrices": _packed_torch.write(decoder._module, source, folder, numerics)})
    difference = _decoding.check(load_packed(folder, numerics), decoder, vocabulary, math.inf, "torch_eager")
    return {**facts, "difference": difference}


def load_packed(folder: Path, numerics: str) -> TorchDecoder:
    """The decoder of a runnable folder in int8, int4, binary, ternary or mixed."""
    return TorchDecoder((_few_bits_decoder if numerics in _FEW else _packed_torch).read(folder))


def cast(module: torch.nn.Module, precision: str) -> torch.nn.Module:
    """The module with its parameters in a number format; buffers keep theirs, since rotary frequencies must not be rounded."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype(precision))
    return module
