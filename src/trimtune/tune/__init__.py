"""Fitting: the loop, the search, the methods.

The package is also a function: `trimtune.tune("train.csv", method="lora", out="out/")` is `trimtune.api.tune`. Python
binds a submodule's name in its package as soon as it is imported, so a function of that name could not live beside it.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> dict[str, Any]:
        from trimtune.api import tune

        return tune(*args, **options)


sys.modules[__name__].__class__ = _Callable
