"""Language models in llama.cpp: each row of a batch is a sequence of its own, at positions 0, 1, …, and padding is never fed.

    rows  [pad pad a b c]  →  sequence 0: a b c        llama.cpp's batch: tokens, positions, sequences, whose logits are wanted
          [d e f g h]         sequence 1: d e f g h

The cache is reserved per row in steps of 256 tokens, as llama.cpp does. It is made for what a batch needs, used again by later
batches that fit, and where rows outgrow it they move to one of twice the length, up to the model's context.
"""

from __future__ import annotations

import ctypes
import weakref
from pathlib import Path
from typing import Any

import numpy as np

from trimtune.engines import _llama_cpp

_CELLS = 256
"""llama.cpp reserves so many tokens of a row at a time"""
_FED = 512
"""tokens of one call at most: what it computes at once decides its memory"""
_ROWS = 8
"""rows of a pass without steps at a time"""


class LlamaDecoder:
    """A `_decoding.Decoder` of a GGUF file.

    Args:
        exact: keys and values in float32 and attention written out, else in float16 and as llama.cpp likes.

    Raises:
        StepFailed: llama.cpp can't load the file.
    """

    def __init__(self, path: Path, threads: int, exact: bool) -> None:
        self._lib: Any = _llama_cpp.library()
        self._model, self._threads, self._exact = _llama_cpp.load(path), threads, exact
        self._free_model = weakref.finalize(self, self._lib.llama_model_free, self._model)
        self._width: int = self._lib.llama_vocab_n_tokens(self._lib.llama_model_get_vocab(self._model))
        self._context: Any = None
        self._free_context: Any = None
        self._reserved = (0, 0)
        """rows, and cells of each"""
        self._lengths_B = np.zeros(0, np.int32)
        self._last_BV = np.zeros((0, 0), np.float32)

    @property
    def context(self) -> int:
        return int(self._lib.llama_model_n_ctx_train(self._model))

    def logits(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        found_BTV = np.zeros((*ids_BT.shape, self._width), np.float32)
        for start in range(0, len(ids_BT), _ROWS):
            piece = slice(start, start + _ROWS)
            self._start(mask_BT[piece])
            places = mask_BT[piece].astype(bool)
            found_BTV[piece][places] = self._whole(ids_BT[piece], places, places)
        return found_BTV

    def begin(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        self._start(mask_BT)
        places = mask_BT.astype(bool)
        last = np.zeros_like(places)
        last[:, -1] = True
        self._last_BV = self._whole(ids_BT, places, last)
        return self._last_BV.copy()

    def step(self, tokens_B: np.ndarray) -> np.ndarray:
        # a row that is full has ended, and goes on saying what it said: llama.cpp ends the process at a position beyond the table
        going = np.flatnonzero(self._lengths_B < self.context)
        if len(going):
            self._reserve(len(self._lengths_B), int(self._lengths_B[going].max()) + 1)
            self._last_BV[going] = self._feed(tokens_B[going], going, self._lengths_B[going], np.ones(len(going), bool))
            self._lengths_B[going] += 1
        return self._last_BV.copy()

    def cache_bytes(self) -> int:
        """Of the cells that are reserved for the batch's rows."""
        lib, model = self._lib, self._model
        size = self._number("attention.key_length") + self._number("attention.value_length")
        per_token = lib.llama_model_n_layer(model) * lib.llama_model_n_head_kv(model) * size * (4 if self._exact else 2)
        return int(len(self._lengths_B) * self._reserved[1] * per_token)

    def close(self) -> None:
        """Free what llama.cpp holds; also done when the decoder is forgotten."""
        if self._free_context:
            self._free_context()
        self._free_model()

    def _start(self, mask_BT: np.ndarray) -> None:
        """An empty cache for rows of these lengths and a token more."""
        self._lengths_B = np.zeros(0, np.int32)  # nothing of the last batch is worth moving
        self._reserve(len(mask_BT), min(int(mask_BT.sum(1).max()) + 1, self.context))
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), False)
        self._lengths_B = mask_BT.sum(1).astype(np.int32)

    def _whole(self, ids_BT: np.ndarray, places_BT: np.ndarray, wanted_BT: np.ndarray) -> np.ndarray:
        rows, _ = np.nonzero(places_BT)
        positions_BT = places_BT.cumsum(1) - 1
        return self._feed(ids_BT[places_BT], rows, positions_BT[places_BT], wanted_BT[places_BT])

    def _feed(self, tokens_N: np.ndarray, rows_N: np.ndarray, positions_N: np.ndarray, wanted_N: np.ndarray) -> np.ndarray:
        """Logits [K, V] after the wanted ones of N tokens, which join the cache.

        Raises:
            StepFailed: llama.cpp gives up.
        """
        found_KV = np.empty((int(wanted_N.sum()), self._width), np.float32)
        done = 0
        for start in range(0, len(tokens_N), _FED):
            piece = slice(start, start + _FED)
            given = [np.ascontiguousarray(one[piece], dtype) for one, dtype in
                     ((tokens_N, np.int32), (positions_N, np.int32), (rows_N, np.int32), (wanted_N, np.int8))]
            if self._lib.llama_decode(self._context, self._batch(*given)):
                raise _llama_cpp.failed("llama.cpp can't decode")
            count = int(given[3].sum())
            if count:
                logits = self._lib.llama_get_logits(self._context)
                found_KV[done:done + count] = np.ctypeslib.as_array(logits, (count, self._width))
                done += count
        return found_KV

    def _batch(self, tokens_N: np.ndarray, positions_N: np.ndarray, rows_N: np.ndarray, wanted_N: np.ndarray) -> Any:
        """llama.cpp's struct over our arrays; it keeps them alive."""
        lib, whole = self._lib, ctypes.POINTER(ctypes.c_int32)
        ones_N = np.ones(len(tokens_N), np.int32)
        rows_at_N = (rows_N.ctypes.data + rows_N.itemsize * np.arange(len(rows_N))).astype(np.uintp)
        batch = lib.llama_batch(
            n_tokens=len(tokens_N), token=tokens_N.ctypes.data_as(whole), pos=positions_N.ctypes.data_as(whole),
            n_seq_id=ones_N.ctypes.data_as(whole), seq_id=rows_at_N.ctypes.data_as(ctypes.POINTER(whole)),
            logits=wanted_N.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)))
        batch.arrays = (tokens_N, positions_N, rows_N, wanted_N, ones_N, rows_at_N)
        return batch

    def _reserve(self, rows: int, length: int) -> None:
        """A context for so many rows of so many tokens; rows that are in the present one move along.

        Raises:
            StepFailed: llama.cpp can't make it.
        """
        if rows <= self._reserved[0] and length <= self._reserved[1]:
            return
        lib = self._lib
        moved = [self._saved(row) for row in range(len(self._lengths_B))]
        cells = min(max(length, 2 * self._reserved[1] if moved else 0), self.context)
        cells = -(-cells // _CELLS) * _CELLS
        if self._free_context:
            self._free_context()
            self._free_context, self._reserved = None, (0, 0)
        settings = lib.llama_context_default_params()
        settings.n_seq_max, settings.n_ctx, settings.n_batch, settings.n_ubatch = rows, rows * cells, _FED, _FED
        settings.n_threads = settings.n_threads_batch = self._threads
        settings.type_k = settings.type_v = lib.GGML_TYPE_F32 if self._exact else lib.GGML_TYPE_F16
        settings.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED if self._exact else lib.LLAMA_FLASH_ATTN_TYPE_AUTO
        settings.no_perf = True
        self._context = lib.llama_init_from_model(self._model, settings)
        if not self._context:
            raise _llama_cpp.failed(f"llama.cpp can't hold {rows} rows of {length} tokens")
        self._free_context, self._reserved = weakref.finalize(self, lib.llama_free, self._context), (rows, cells)
        for row, state in enumerate(moved):
            if lib.llama_state_seq_set_data(self._context, state, len(state), row) != len(state):
                raise _llama_cpp.failed("llama.cpp can't move its cache")

    def _saved(self, row: int) -> Any:
        size = self._lib.llama_state_seq_get_size(self._context, row)
        state = (ctypes.c_uint8 * size)()
        self._lib.llama_state_seq_get_data(self._context, state, size, row)
        return state

    def _number(self, key: str) -> int:
        """A size from the file, its architecture's."""
        found = ctypes.create_string_buffer(64)
        for name in ("general.architecture", None):
            full = name or f"{found.value.decode()}.{key}"
            self._lib.llama_model_meta_val_str(self._model, full.encode(), found, len(found))
        return int(found.value)
