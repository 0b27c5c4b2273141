"""What every test of bad input asks of an error."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from trimtune.errors import TrimtuneError


def fault(call: Callable[[], object], *named: str) -> TrimtuneError:
    """The error that `call` raises: what was given, what is allowed and what to do, with each of `named` in it."""
    with pytest.raises(TrimtuneError) as caught:
        call()
    says(caught.value, *named)
    return caught.value


def says(error: TrimtuneError, *named: str) -> None:
    """Assert that the error has its three parts, and each of `named` in them."""
    assert error.given, f"it doesn't say what was given: {error}"
    assert error.allowed, f"it doesn't say what is allowed: {error}"
    assert error.do, f"it doesn't say what to do: {error}"
    for word in named:
        assert word in str(error), f"'{word}' is not in: {error}"
