"""What a hop of the parity gate allows a language model, over the learned tokens of validation rows.

    tuned → merged        relative Δperplexity ≤ 1e-3, max |Δlogit| ≤ 1e-3 · max(1, s), the same token on ≥ 99% of the clear ones
    tuned → plain peft    the same
    model → engine        where the engine promises float32 (a tolerance ≤ 1e-2): the same, with the tolerance it promises
                          where it promises more (bf16, fp16): relative Δperplexity ≤ 2e-2, the same token on ≥ 98%
                          where it promises nothing (int8, int4): recorded; broken beyond 0.5, or on < 60%
    measured → bundle     each test prompt's log-likelihood within 1e-4 of what the run recorded, relative to it or to 1 nat

perplexity = exp(Σ -log softmax(logits_NV)[token] / N) over N learned tokens; s is the root mean square of the logits about
their mean over V. A token is clear where the first side's best two logits lie more than a fiftieth of their range apart; others
may fall to either side by rounding. One clear token may always differ, since few tokens make coarse shares.

On a Llama of 260,032 weights two thirds of the tokens are clear; bf16 and int8 per channel change none of these and the
perplexity by at most 1.1%, int4 in groups of 32 changes 30% and 28%, int3 per channel, which is broken, 80% and 335%.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trimtune.records import Record
from trimtune.ship.parity import promised
from trimtune.tasks._perplexity import perplexity

if TYPE_CHECKING:
    from numpy.typing import NDArray

BALANCE = 0.02
"""of a token's logits from lowest to highest: where the best two are nearer, it is in the balance"""
_CHUNK = 128
"""tokens that are compared together"""
_EXACT_PROMISE = 1e-2
_SHIPPED = 1e-4


class Allowed(NamedTuple):
    """`difference`: max |Δlogit| for logits with s ≤ 1; None is not judged. `note` says why a limit is wide."""

    perplexity: float
    agreement: float
    difference: float | None
    note: str = ""


EXACT = Allowed(1e-3, 0.99, 1e-3)
ROUNDED = Allowed(2e-2, 0.98, None)
CHANGED = Allowed(0.5, 0.6, None)


class Divergence(Record):
    """The first place where two sides part: after `before` one side has `expected`, the other `given`."""

    row: int
    position: int
    before: str
    expected: str
    given: str

    def __str__(self) -> str:
        return (f"First in row {self.row}, token {self.position}, after {self.before!r}: expected {self.expected!r}, "
                f"given {self.given!r}")


class LMHop(Record):
    """One hop. `perplexity` is that of the first side, `max_difference` the largest |Δlogit|."""

    name: str
    rows: int
    tokens: int = 0
    perplexity: float | None = None
    perplexity_after: float | None = None
    relative: float | None = None
    """|perplexity_after / perplexity - 1|"""
    allowed_relative: float | None = None
    agreement: float | None = None
    """share of tokens with the same best next token"""
    clear_tokens: int = 0
    clear_agreement: float | None = None
    """the same of the clear tokens: what is judged"""
    allowed_agreement: float | None = None
    max_difference: float | None = None
    allowed_difference: float | None = None
    divergence: Divergence | None = None
    passed: bool
    note: str = ""

    def __str__(self) -> str:
        said = [f"{self.name}: {self.rows} rows"]
        if self.perplexity is not None:
            said = [(f"{self.name}: perplexity {self.perplexity:.5g} → {self.perplexity_after:.5g} over {self.tokens:,} tokens "
                     f"of {self.rows} rows (relative difference {self.relative:.2g}, allowed {self.allowed_relative:g})")]
        if self.agreement is not None:
            said.append(f"same next token on {self.agreement:.2%}, on {self.clear_agreement:.2%} of the {self.clear_tokens:,} "
                        f"clear ones (at least {self.allowed_agreement:.0%})")
        if self.max_difference is not None:
            limit = "not judged" if self.allowed_difference is None else f"allowed {self.allowed_difference:.2g}"
            said.append(f"max |Δlogit| {self.max_difference:.2g} ({limit})")
        return ", ".join(said) + (f". {self.divergence}" if self.divergence else "") + (f"; {self.note}" if self.note else "")


class Tokens(NamedTuple):
    """What there is to say of N tokens, one value each; `squares` are sums over V, of V logits each."""

    nll_before: NDArray[np.float64]
    nll_after: NDArray[np.float64]
    best_before: NDArray[np.int64]
    best_after: NDArray[np.int64]
    clear: NDArray[np.bool_]
    difference: NDArray[np.float64]
    spread: NDArray[np.float64]
    """mean square of the first side's logits about their mean"""


def tokens(before_NV: np.ndarray, after_NV: np.ndarray, target_N: np.ndarray) -> Tokens:
    """Compare two sides' logits [N, V] before N tokens, a few tokens at a time."""
    found = []
    for start in range(0, len(target_N), _CHUNK):
        at = slice(start, start + _CHUNK)
        one_NV, other_NV, target = before_NV[at].astype(np.float64), after_NV[at].astype(np.float64), target_N[at]
        top_N2 = np.sort(np.partition(one_NV, -2, axis=-1)[:, -2:], axis=-1)
        with np.errstate(invalid="ignore", over="ignore"):  # what isn't finite fails in `judged`
            found.append(Tokens(
                _nll(one_NV, target), _nll(other_NV, target), one_NV.argmax(-1), other_NV.argmax(-1),
                top_N2[:, 1] - top_N2[:, 0] > BALANCE * (top_N2[:, 1] - one_NV.min(-1)),
                np.abs(one_NV - other_NV).max(-1), one_NV.var(axis=-1)))
    return joined(found)


def joined(pieces: Sequence[Tokens]) -> Tokens:
    """Several as one."""
    return Tokens(*(np.concatenate(column) for column in zip(*pieces, strict=True)))


def ordered(found: Tokens, order: Sequence[int]) -> Tokens:
    """The tokens in another order."""
    columns: list[Any] = [np.asarray(column)[list(order)] for column in found]
    return Tokens(*columns)


def _nll(logits_NV: np.ndarray, target_N: np.ndarray) -> NDArray[np.float64]:
    top_N = logits_NV.max(-1)
    found: NDArray[np.float64] = np.log(np.exp(logits_NV - top_N[:, None]).sum(-1)) + top_N - logits_NV[
        np.arange(len(target_N)), target_N]
    return found


def judged(name: str, found: Tokens, rows: int, allowed: Allowed, divergence: Divergence | None = None) -> LMHop:
    """The hop over the tokens of `rows` rows. What is not finite never passes."""
    n, clear = len(found.clear), int(found.clear.sum())
    differs_N = found.best_before != found.best_after
    flips = int((differs_N & found.clear).sum())
    before, after = (_perplexity(float(column.sum()), n) for column in (found.nll_before, found.nll_after))
    relative, difference = abs(after / before - 1), float(found.difference.max())
    scale = max(1.0, math.sqrt(float(found.spread.mean())))
    limit = None if allowed.difference is None else allowed.difference * scale
    close = relative <= allowed.perplexity and math.isfinite(difference) and (limit is None or difference <= limit)
    agreement = 1 - flips / max(clear, 1)
    return LMHop(name=name, rows=rows, tokens=n, perplexity=before, perplexity_after=after, relative=relative,
                 allowed_relative=allowed.perplexity, agreement=1 - float(differs_N.mean()), clear_tokens=clear,
                 clear_agreement=agreement, allowed_agreement=allowed.agreement, max_difference=difference,
                 allowed_difference=limit, divergence=divergence, note=allowed.note,
                 passed=close and (flips <= 1 or agreement >= allowed.agreement - 1e-9))


def first(found: Tokens) -> int | None:
    """The token of the first divergence: the first clear one that differs, else the first that does."""
    differs_N = found.best_before != found.best_after
    for among_N in (differs_N & found.clear, differs_N):
        if among_N.any():
            return int(among_N.argmax())
    return None


def compare_shipped(measured: Sequence[tuple[float, int]], shipped: Sequence[tuple[float, int]]) -> LMHop:
    """The last hop: (nll, tokens) of each test prompt's rows, as the run recorded them and by the bundle."""
    name = "measured → bundle"
    if [count for _, count in measured] != [count for _, count in shipped]:
        return LMHop(name=name, rows=len(measured), passed=False,
                     note=f"the run recorded {sum(count for _, count in measured):,} learned tokens of {len(measured)} prompts, "
                          f"the bundle reads {sum(count for _, count in shipped):,} of {len(shipped)}")
    counted = sum(count for _, count in measured)
    before, after = (_perplexity(sum(nll for nll, _ in side), counted) for side in (measured, shipped))
    off_R = np.array([abs(one - other) / max(one, 1.0) for (one, _), (other, _) in zip(measured, shipped, strict=True)])
    worst = float(off_R.max())  # unlike max(), it keeps a NaN
    return LMHop(name=name, rows=len(measured), tokens=counted, perplexity=before, perplexity_after=after,
                 relative=abs(after / before - 1), allowed_relative=_SHIPPED, passed=worst <= _SHIPPED,
                 note=f"a prompt's log-likelihood is off by {worst:.2g} at most "
                      f"(prompt {off_R.argmax() + 1}, allowed {_SHIPPED:g})")


def allowed_of(engine: str, numerics: str, precision: str) -> Allowed:
    """What an engine may change: by what it promises for the format that it runs in."""
    found = promised(engine, numerics, precision)
    if found is None:
        return CHANGED._replace(note=f"{precision or numerics} changes answers on purpose: judged only for being broken")
    return EXACT._replace(difference=found) if found <= _EXACT_PROMISE else ROUNDED


def _perplexity(nll: float, counted: int) -> float:
    return perplexity(nll / max(counted, 1))


def parting(row: int, ids: Sequence[int], position: int, expected: int, given: int, tokenizer: Any) -> Divergence:
    """A divergence in words: `ids` are the row's tokens, the place is before the one at `position`.

    Tokens are shown as the tokenizer writes them.
    """
    text: str = tokenizer.decode(ids[:position])
    return Divergence(row=row, position=position, before=text if len(text) <= 60 else "…" + text[-60:],
                      expected=str(tokenizer.convert_ids_to_tokens(expected)), given=str(tokenizer.convert_ids_to_tokens(given)))
