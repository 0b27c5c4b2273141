"""llama.cpp through llama-cpp-python's low-level binding: quiet, and what goes wrong is an error with llama.cpp's own words."""

from __future__ import annotations

import ctypes
from collections import deque
from functools import cache
from pathlib import Path
from typing import Any

from trimtune.errors import StepFailed

_ERROR = 4
"""ggml's log level"""
_said: deque[str] = deque(maxlen=1)
"""the last error that llama.cpp logged"""
_kept: list[Any] = []
"""the callback that llama.cpp calls as long as the process lives"""


@cache
def library() -> Any:
    """The binding, with its log turned off."""
    import llama_cpp

    _kept.append(llama_cpp.llama_log_callback(_listen))
    llama_cpp.llama_log_set(_kept[0], ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    return llama_cpp


def _listen(level: int, text: bytes, data: Any) -> None:
    if level == _ERROR:
        _said.append(text.decode("utf-8", "replace").strip())


def failed(what: str) -> StepFailed:
    """What could not be done, with the last error that llama.cpp told."""
    return StepFailed(f"gguf_llamacpp: {what}" + (f" ({_said.pop()})" if _said else ""))


def load(path: Path, vocabulary_only: bool = False) -> Any:
    """A model, on the CPU; whoever loads it frees it.

    Raises:
        StepFailed: llama.cpp can't read the file.
    """
    lib = library()
    settings = lib.llama_model_default_params()
    settings.n_gpu_layers, settings.vocab_only = 0, vocabulary_only
    model = lib.llama_model_load_from_file(str(path).encode(), settings)
    if not model:
        raise failed(f"llama.cpp can't load {path.name}")
    return model


def quantize(source: Path, target: Path, kind: str, threads: int) -> None:
    """Write a file in a mix of types that llama.cpp chooses by tensor: `Q8_0`, `Q4_K_M`.

    Raises:
        StepFailed: llama.cpp refuses.
    """
    lib = library()
    settings = lib.llama_model_quantize_default_params()
    settings.ftype, settings.nthread = getattr(lib, f"LLAMA_FTYPE_MOSTLY_{kind}"), threads
    if lib.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(settings)):
        raise failed(f"llama.cpp can't quantize to {kind}")


def tokenized(path: Path, texts: tuple[str, ...]) -> list[list[int]]:
    """What llama.cpp makes of texts with the file's tokenizer, special tokens included."""
    lib, model = library(), load(path, vocabulary_only=True)
    vocabulary = lib.llama_model_get_vocab(model)
    found = []
    for text in texts:
        raw = text.encode()
        room = (lib.llama_token * (len(raw) + 8))()
        found.append(list(room[:lib.llama_tokenize(vocabulary, raw, len(raw), room, len(room), True, True)]))
    lib.llama_model_free(model)
    return found
