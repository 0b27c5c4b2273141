"""Language models compiled by torch.compile: next tokens on a cache that is allocated in blocks; prompts are taken in uncompiled.

    keys, values [B, H, L, D] of every layer; L a multiple of 64; slot s holds token s, slots not yet written are masked
    step: logits_BV = compiled(token [B, 1], mask [B, L], position [B, 1], slot [1], cache), which writes its slot in place

L and B are symbols of the graph, so two graphs serve everything: one for a single row, one for more. A few more
are allowed; beyond them a call fails, where torch would quietly go on uncompiled and be measured as compiled.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trimtune.engines import _cached_graph, _decoding, _graph
from trimtune.engines._compiled import compiled, leave_open
from trimtune.engines._torch_decoder import cast, positions_of
from trimtune.tasks import _shapes, causal_lm
from trimtune.trim._model_folder import base_of, write
from trimtune.tune.precision import dtype

if TYPE_CHECKING:
    import torch

_BLOCK = 64
"""slots by which the cache grows: copied so seldom, and masked places cost little"""
_CHECKED = (_decoding.LENGTHS, (5,))
"""lengths of the rows, once for each graph"""


class CompiledGraph:
    """A `_cached_graph.Graph` on a module of `blocks`.

    Args:
        compile_: False runs every step operator by operator, the plain reference of the compiled ones.
        freezing: of weights, into each compiled graph.
    """

    def __init__(self, blocks: torch.nn.Module, precision: str, compile_: bool = True, freezing: bool = False) -> None:
        self._plain, self._dtype = blocks, dtype(precision)
        self._step = compiled(blocks, freezing=freezing) if compile_ else blocks
        self._cache: list[torch.Tensor] = []
        self._filled = 0

    def start(self, past: list[np.ndarray]) -> None:
        import torch

        self._cache = [torch.from_numpy(tensor).to(self._dtype) for tensor in past]
        self._filled = past[0].shape[2]

    def run(self, ids_BT: np.ndarray, mask_BS: np.ndarray, positions_BT: np.ndarray, places_K: np.ndarray) -> np.ndarray:
        import torch

        batch, tokens = ids_BT.shape
        self._make_room(self._filled + tokens)
        mask_BL = torch.zeros(batch, self._cache[0].shape[2], dtype=torch.bool)
        mask_BL[:, :mask_BS.shape[1]] = torch.from_numpy(mask_BS) > 0
        # copied: a slice's strides are those of what it was cut from, and graphs are kept apart by strides
        ids, positions, places = (torch.tensor(one.tolist()) for one in (ids_BT, positions_BT, places_K))
        slots_T = torch.arange(self._filled, self._filled + tokens)
        step = tokens == 1
        if step:
            leave_open([ids, mask_BL, positions, *self._cache], 0 if batch > 1 else None)
            leave_open([mask_BL], 1)
            leave_open(self._cache, 2)
        with torch.no_grad():
            logits_BKV = (self._step if step else self._plain)(ids, mask_BL, positions, slots_T, places, self._cache)
        self._filled += tokens
        found: np.ndarray = logits_BKV.float().numpy()
        return found

    def cache_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._cache)

    def _make_room(self, slots: int) -> None:
        import torch

        have = self._cache[0].shape[2]
        if slots > have or have % _BLOCK:
            more = math.ceil(slots / _BLOCK) * _BLOCK - have
            self._cache = [torch.nn.functional.pad(tensor, (0, 0, 0, more)) for tensor in self._cache]


def blocks(module: torch.nn.Module) -> torch.nn.Module:
    """`forward(ids [B, T], mask [B, L], positions [B, T], slots [T], places [K], cache) -> logits [B, K, V]`; it writes the
    tokens' keys and values into their slots of the cache.

    Raises:
        TrimtuneError: an architecture that the graphs of `_cached_graph` can't express.
    """
    import torch
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    base = _cached_graph.supported(module, "torch_compiled")

    class Slots(DynamicLayer):
        def __init__(self, keys: torch.Tensor, values: torch.Tensor, slots: torch.Tensor) -> None:
            super().__init__()
            self.lazy_initialization(keys, values)
            self.keys, self.values, self.slots = keys, values, slots

        def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
            self.keys.index_copy_(2, self.slots, key_states)
            self.values.index_copy_(2, self.slots, value_states)
            return self.keys, self.values

    class Blocks(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = base

        def forward(self, ids: torch.Tensor, mask_BL: torch.Tensor, positions: torch.Tensor, slots_T: torch.Tensor,
                    places: torch.Tensor, cache: list[torch.Tensor]) -> torch.Tensor:
            layers = DynamicCache()
            layers.layers += [Slots(keys, values, slots_T) for keys, values in zip(cache[::2], cache[1::2], strict=True)]
            here_L, at_T1 = torch.arange(mask_BL.shape[1]), slots_T[:, None]
            # padding sees itself: see `_cached_graph`
            seen_BTL = (here_L < at_T1) & mask_BL[:, None] | (here_L == at_T1)
            lowest = torch.finfo(cache[0].dtype).min
            bias_BTL = torch.zeros_like(seen_BTL, dtype=cache[0].dtype).masked_fill(~seen_BTL, lowest)
            out = self.model(input_ids=ids, attention_mask=bias_BTL[:, None], position_ids=positions, use_cache=True,
                             past_key_values=layers, logits_to_keep=places)
            logits_BKV: torch.Tensor = out.logits
            return logits_BKV

    return Blocks().eval()


def export(folder: Path, source: Path, precision: str, max_length: int, tolerance: float,
           freezing: bool = False) -> dict[str, Any]:
    """Write config, weights, what stands before each row and tokenizer; facts: `precision`, `freezing`, `positions`,
    `difference` (|Δlogit| to PyTorch in float32 without a cache: of the compiled model in float32, with one row and with
    several, or of its steps in bf16, uncompiled) and `milliseconds` [a prefill, 8 tokens after it] of what was timed.

    Raises:
        StepFailed: the compiled model answers differently than PyTorch.
    """
    module: Any = causal_lm.load_model(source)
    past, positions = _cached_graph.past_of(module), positions_of(module)
    decoder = _decoder(module, past, positions, "fp32", freezing=freezing)
    difference = max(_cached_graph.checked(decoder, module, tolerance, "torch_compiled", rows) for rows in _CHECKED)
    milliseconds: dict[str, list[float]] = {}
    if precision == "auto":
        decoders = {"fp32": decoder, "bf16": _decoder(causal_lm.load_model(source), past, positions, "bf16", freezing=freezing)}
        precision, milliseconds = _decoding.fastest(decoders, base_of(module).config.vocab_size, max_length)
    if precision == "bf16":
        rounded = _decoder(causal_lm.load_model(source), past, positions, "bf16", compile_=False)
        difference = _cached_graph.checked(rounded, module, sys.float_info.max, "torch_compiled")
    write(base_of(module), source, folder, dtype(precision), causal_lm)
    _cached_graph.write_past(folder, past)
    return {"precision": precision, "freezing": freezing, "positions": positions, "difference": difference,
            "milliseconds": milliseconds}


def load(folder: Path) -> _cached_graph.GraphDecoder:
    """The decoder of a runnable folder, its two graphs compiled."""
    from transformers import AutoModelForCausalLM

    notes = _graph.noted(folder)
    model = _shapes.read(AutoModelForCausalLM, folder, None, dtype(notes["precision"]))
    decoder = _decoder(model.eval().requires_grad_(False), _cached_graph.read_past(folder), notes["positions"],
                       notes["precision"], freezing=notes.get("freezing", False))
    for batch in (1, 2):
        decoder.begin(*np.ones((2, batch, 2), np.int64))
        decoder.step(np.ones(batch, np.int64))
    return decoder


def _decoder(module: Any, past: list[np.ndarray], positions: int, precision: str,
             compile_: bool = True, freezing: bool = False) -> _cached_graph.GraphDecoder:
    graph = CompiledGraph(blocks(cast(module, precision)), precision, compile_, freezing)
    return _cached_graph.GraphDecoder(graph, past, positions)
