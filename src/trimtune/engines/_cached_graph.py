"""A language model as a graph whose cache is in the open: for engines that run graphs, with one decoder for all of them.

    logits_BKV, present = graph(input_ids [B, T], attention_mask [B, S + T], position_ids [B, T], places [K], past)

`past` and `present` are the keys and values of every layer, [B, H, S, D] and [B, H, S + T, D], key before value; `places`
are the positions among the T whose logits are wanted, so that a prompt's other logits are never computed. Virtual tokens need
no code in the graph: whatever a prefix, prompt or P-tuning puts before a row, later tokens see its keys and values alone, and
these depend on nothing after them. So they are computed once, at export, and every batch begins with them as its past.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from trimtune.engines import _decoding
from trimtune.engines._torch_decoder import TorchDecoder, positions_of, window_of
from trimtune.errors import TrimtuneError
from trimtune.trim._model_folder import base_of

if TYPE_CHECKING:
    import torch

    Past = list[np.ndarray]

_PAST = "past.safetensors"
_NEEDED = ("position_ids", "past_key_values", "logits_to_keep")


class Graph(Protocol):
    """A graph that an engine has loaded; it keeps the cache of the batch at hand."""

    def start(self, past: Past) -> None:
        """Begin a batch: keys and values [B, H, P, D] of every layer, float32, P ≥ 0."""

    def run(self, ids_BT: np.ndarray, mask_BS: np.ndarray, positions_BT: np.ndarray, places_K: np.ndarray) -> np.ndarray:
        """Logits [B, K, V], float32; the tokens join the cache. All that is given is int64."""

    def cache_bytes(self) -> int:
        """Bytes of the keys and values in the cache."""


class GraphDecoder:
    """A `_decoding.Decoder` over a graph.

    Args:
        past: what stands before every row, [1, H, P, D] of every layer.
        positions: tokens that the model can hold, with virtual ones.
    """

    def __init__(self, graph: Graph, past: Past, positions: int) -> None:
        self._graph, self._past, self._positions = graph, past, positions
        self._virtual: int = past[0].shape[2]
        self._mask_BS = np.zeros((0, 0), np.int64)

    @property
    def context(self) -> int:
        return self._positions - self._virtual

    def logits(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        self._start(mask_BT)
        return self._run(ids_BT, np.arange(ids_BT.shape[1]))

    def begin(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        self._start(mask_BT)
        return self._run(ids_BT, np.array([ids_BT.shape[1] - 1]))[:, 0]

    def step(self, tokens_B: np.ndarray) -> np.ndarray:
        self._mask_BS = np.pad(self._mask_BS, ((0, 0), (0, 1)), constant_values=1)
        return self._run(tokens_B[:, None], np.array([0]))[:, 0]

    def cache_bytes(self) -> int:
        return self._graph.cache_bytes()

    def _start(self, mask_BT: np.ndarray) -> None:
        batch = len(mask_BT)
        self._graph.start([np.repeat(tensor, batch, axis=0) for tensor in self._past])
        self._mask_BS = np.concatenate([np.ones((batch, self._virtual), np.int64), mask_BT], axis=1)

    def _run(self, ids_BT: np.ndarray, places_K: np.ndarray) -> np.ndarray:
        # rows that have ended are fed on with the others, beyond the last position perhaps
        positions_BS = (self._mask_BS.cumsum(axis=1) - 1).clip(0, self._positions - 1)
        return self._graph.run(ids_BT, self._mask_BS, positions_BS[:, -ids_BT.shape[1]:], places_K)


def past_of(module: torch.nn.Module) -> Past:
    """Keys and values [1, H, P, D] of a module's virtual tokens, float32; without any, P = 0."""
    import torch
    from transformers import Cache

    base, module_ = base_of(module), TorchDecoder(module)
    with torch.inference_mode():
        if module_.virtual:
            start = module.get_prompt(batch_size=1)  # type: ignore[operator]
            cache = start if isinstance(start, Cache) else base(inputs_embeds=start, use_cache=True).past_key_values
        else:
            cache = base(input_ids=torch.zeros(1, 1, dtype=torch.long), use_cache=True).past_key_values
    states = [tensor.float().numpy() for layer in cache.layers for tensor in (layer.keys, layer.values)]
    return [np.ascontiguousarray(tensor[:, :, :module_.virtual]) for tensor in states]


def traceable(module: torch.nn.Module, engine: str) -> torch.nn.Module:
    """The graph of this page as a torch module, `past` given as one list.

    Raises:
        TrimtuneError: as `supported`.
    """
    import torch
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    base = supported(module, engine)

    class CachedGraph(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = base

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, position_ids: torch.Tensor,
                    places: torch.Tensor, past: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
            cache = DynamicCache()
            for keys, values in zip(past[::2], past[1::2], strict=True):
                # an empty cache that is filled by `update` would be traced as a tensor of shape [0]
                layer = DynamicLayer()
                layer.lazy_initialization(keys, values)
                layer.keys, layer.values = keys, values
                cache.layers.append(layer)
            out = self.model(input_ids=input_ids, attention_mask=_causal(attention_mask, input_ids.shape[1]), use_cache=True,
                             position_ids=position_ids, past_key_values=cache, logits_to_keep=places)
            return out.logits, *(tensor for layer in cache.layers for tensor in (layer.keys, layer.values))

    return CachedGraph().eval()


def supported(module: torch.nn.Module, engine: str) -> Any:
    """The transformers model of a module, if it can be a graph with its cache in the open.

    Raises:
        TrimtuneError: an architecture that counts positions, cuts its logits or limits its attention in another way.
    """
    base = base_of(module)
    lacking = [name for name in _NEEDED if name not in inspect.signature(base.forward).parameters]
    if lacking:
        raise TrimtuneError(f"{engine}: {type(base).__name__} takes no {', no '.join(lacking)}.",
                            "Language models are exported here that take " + ", ".join(_NEEDED) + " (Llama-like, GPT-2-like).",
                            "Use torch_eager for it.")
    window = window_of(base.config)
    if window and window < positions_of(module):
        raise TrimtuneError(f"{engine}: {type(base).__name__} sees a window of {window} tokens only.",
                            "Language models are exported here whose tokens see all that came before.", "Use torch_eager for it.")
    return base


def _causal(mask_BS: torch.Tensor, tokens: int) -> torch.Tensor:
    """What is added to attention scores, [B, 1, T, S]. Padding sees itself: a row that sees nothing is NaN in some engines,
    and a value of NaN spoils every sum that it has no weight in.
    """
    import torch

    width = mask_BS.shape[1]
    asks_T1, seen_1S = torch.arange(tokens)[:, None] + (width - tokens), torch.arange(width)[None]
    allowed_BTS = (seen_1S < asks_T1) & (mask_BS[:, None] > 0) | (seen_1S == asks_T1)
    return torch.where(allowed_BTS, 0.0, torch.finfo(torch.float32).min)[:, None]


def example(past: Past) -> dict[str, Any]:
    """What a graph is traced with: a padded batch of 2 rows, 5 tokens behind 3 in the cache."""
    import torch

    mask_BS = torch.ones(2, 8, dtype=torch.long)
    mask_BS[0, :2] = 0
    return {"input_ids": torch.ones(2, 5, dtype=torch.long), "attention_mask": mask_BS,
            "position_ids": (mask_BS.cumsum(1) - 1).clamp(0)[:, 3:], "places": torch.arange(5),
            "past": [torch.zeros(2, tensor.shape[1], 3, tensor.shape[3]) for tensor in past]}


def write_past(folder: Path, past: Past) -> None:
    from safetensors.numpy import save_file

    save_file({f"{index:04d}": tensor for index, tensor in enumerate(past)}, folder / _PAST)


def read_past(folder: Path) -> Past:
    from safetensors.numpy import load_file

    return [tensor for _, tensor in sorted(load_file(folder / _PAST).items())]


def checked(decoder: GraphDecoder, module: torch.nn.Module, tolerance: float, engine: str,
            lengths: Sequence[int] = _decoding.LENGTHS) -> float:
    """The largest |Δlogit| between the engine's decoding and PyTorch's passes without a cache.

    Raises:
        StepFailed: beyond the tolerance.
    """
    return _decoding.check(decoder, TorchDecoder(module), base_of(module).config.vocab_size, tolerance, engine,
                           lengths)
