"""The memory of a fit's process: what a step frees is kept for the next one, in huge pages, and so are the kernels it built.

Three costs that a step of a small model feels, most of all on virtual machines, where a page fault is dear (LOG.md has figures):

- glibc gives freed memory back to the kernel, and the next step faults it in again, page by page (mallopt(3));
- activations of some MB in pages of 4 kB: where the kernel allows it, the heap is asked for pages of 2 MB (madvise(2));
- oneDNN builds its kernels for each shape and keeps 1,024 of them: batches of 40 widths need more, and it builds them again.

Only speed changes. Where the C library or the kernel is another, nothing is done.
"""

from __future__ import annotations

import contextlib
import ctypes
import os

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h
_LARGEST_BLOCK = 2**25
"""the most that glibc takes from its heap; above, each block is mapped by itself"""
_GROWN_BY, _HUGE_PAGE, _MADV_HUGEPAGE = 2**30, 2**21, 14
_KERNELS = "4096"


def prepare() -> None:
    """To be called once, before the first step."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", _KERNELS)  # read when the first kernel is built
    with contextlib.suppress(OSError, AttributeError):
        c = ctypes.CDLL(None)
        c.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        c.mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
        c.mallopt(_TOP_PAD, _GROWN_BY)
        _in_huge_pages(c)


def _in_huge_pages(c: ctypes.CDLL) -> None:
    """Let the heap grow once, by addresses that nothing fills yet, and ask for huge pages there."""
    for name in ("sbrk", "malloc"):
        getattr(c, name).restype = ctypes.c_void_p
    before = end = c.sbrk(0)
    blocks: list[int] = []
    while end == before and len(blocks) < 64:
        blocks.append(c.malloc(ctypes.c_size_t(_LARGEST_BLOCK - 4096)))
        end = c.sbrk(0)
    for block in blocks:
        c.free(ctypes.c_void_p(block))
    start = -(-before // _HUGE_PAGE) * _HUGE_PAGE
    if end > start:
        c.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_HUGEPAGE)
