"""What the last attention of a teacher looks at, beside a fit: MiniLM's attention maps and value relations.

    A = 1/(H T) Σ_h Σ_t KL(softmax(s · q_t Kᵀ + mask) ‖ the student's)
      + 1/(G T) Σ_g Σ_t KL(softmax(v_t Vᵀ / √d + mask) ‖ the student's)

q [B, H, T, d], k and v [B, G, S, d]: what the last layer's attention is given, positions and all; s its scale; G < H where heads
share a key. The mask leaves out padding, and in decoders what comes later. t runs over a row's tokens without padding. All of it
is in float32. A is a mean over rows, weighted by what is learned of each, so that pieces of a batch add up to it.

Source: Wang et al. 2020, MiniLM (arXiv 2002.10957), sections 3.1 and 3.2; masks are ours.

`watch` gives the last layer an attention function of ours: transformers calls it with just these tensors, whatever an
architecture calls the layers that made them. The teacher is asked once per row and its tensors are kept, or in each step where
they would take more than a gigabyte.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from trimtune.errors import TrimtuneError
from trimtune.tune import batches, softmax
from trimtune.tune.distilling import real
from trimtune.tune.feeds import Answered, Feed
from trimtune.tune.layers import kept_if_equal, layers_of

if TYPE_CHECKING:
    import torch

NAME = "eager_watched"
_TOGETHER = 32
"""rows that the teacher sees in one pass"""
_KEPT_BYTES = 2**30
"""of a teacher's tensors at most; those of MiniLM for 450,000 tokens in bf16 are so much"""


class Handed(NamedTuple):
    """What an attention is given: q [B, H, T, d], k and v [B, G, S, d], a mask to add ([B, 1, T, S] or None), the scale."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    scaling: float


Found = Callable[[Sequence[int]], Handed]
"""the teacher's tensors for these rows"""


def watch_both(student: torch.nn.Module, teacher: torch.nn.Module) -> None:
    """Make the last attention of each keep what it is given, for `taken`; both in float32, in place.

    Raises:
        TrimtuneError: an attention isn't the plain one, or the two have unlike heads.
    """
    mine, theirs = watch(student), watch(teacher)
    if mine != theirs:
        raise TrimtuneError("distill: attention was given, and the last layers of teacher and student have unlike heads: "
                            f"{theirs[0]} on {theirs[1]} keys, and {mine[0]} on {mine[1]}.",
                            "Each head learns from the teacher's own, so their numbers must be equal.",
                            "Leave attention out, or prune heads after distill.")


def watch(model: torch.nn.Module) -> tuple[int, int]:
    """The same for one model, of transformers or in PEFT's wrapper; returns its last layer's heads and those of their keys.

    Raises:
        TrimtuneError: it calls no attention function of transformers, or answers otherwise with the plain one.
    """
    from transformers import AttentionInterface

    base = _base(model)
    AttentionInterface.register(NAME, _attend)
    base.set_attn_implementation("eager")  # whose mask is one to add
    config = copy.deepcopy(base.config)
    config._attn_implementation = NAME

    def change() -> None:
        for part in layers_of(base)[-1].modules():
            if hasattr(part, "config"):
                part.config = config  # its own: the layers below stay as they are

    same = kept_if_equal(base, change, lambda: None)
    if not same or not _holders(base):
        raise TrimtuneError(f"distill: attention was given, and that of {type(base).__name__} isn't the plain "
                            "softmax(Q Kᵀ / √d) V by transformers' attention functions.",
                            "Allowed: BERT, DistilBERT, RoBERTa, ELECTRA, Llama, GPT-2 and others that are built so.",
                            "Leave attention out; states are there for every model that distill takes.")
    found = taken(model)
    return found.query.shape[1], found.key.shape[1]


def taken(model: torch.nn.Module) -> Handed:
    """What the last attention of a watched model was given in its last pass; once."""
    found: Handed = vars(_holders(_base(model))[0]).pop("handed")
    return found


def beside(feed: Feed, student: torch.nn.Module, asked: Feed, teacher: torch.nn.Module) -> Feed:
    """The feed with A [] as one more of what the loss takes.

    Args:
        asked: the same rows through the teacher; both models are watched.
    """
    theirs = _kept(asked, teacher)

    def answered(batch: Sequence[int]) -> Answered:
        found = feed.answered(batch)
        lengths, counts = ([of[row] for row in batch] for of in (feed.lengths, feed.counts))
        return (*found, divergence(taken(student), theirs(batch), lengths, counts))

    return replace(feed, answered=answered)


def divergence(mine: Handed, theirs: Handed, lengths: Sequence[int], counts: Sequence[int]) -> torch.Tensor:
    """A of the formula above, under the student's mask, which is the teacher's too.

    Args:
        lengths: tokens of each row; virtual ones stand before them, and T is larger by their number.
        counts: how much of each row is learned.
    """
    import torch

    width = mine.query.shape[2]
    real_BT = real(width, lengths, mine.query.device)
    map_BT = _apart(*(_map(one.query, one.key, mine.mask, one.scaling) for one in (mine, theirs)))
    relation_BT = _apart(*(_map(one.value[:, :, -width:], one.value, mine.mask, one.value.shape[-1] ** -0.5)
                           for one in (mine, theirs)))
    apart_B = ((map_BT + relation_BT) * real_BT).sum(1) / real_BT.sum(1)
    weights_B = torch.tensor(counts, device=apart_B.device, dtype=apart_B.dtype)
    return (apart_B * weights_B).sum() / weights_B.sum().clamp_min(1)


def _map(query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scaling: float) -> torch.Tensor:
    """log softmax(s · Q Kᵀ + mask), [B, H, T, S] in float32."""
    scores = query.float() @ softmax.shared(key, query).float().transpose(-1, -2) * scaling
    return (scores if mask is None else scores + mask).log_softmax(-1)


def _apart(mine_BHTS: torch.Tensor, theirs_BHTS: torch.Tensor) -> torch.Tensor:
    """KL(theirs ‖ mine) of their logarithms, a mean over heads, [B, T]."""
    import torch

    return torch.nn.functional.kl_div(mine_BHTS, theirs_BHTS, reduction="none", log_target=True).sum(-1).mean(1)


def _kept(asked: Feed, teacher: torch.nn.Module) -> Found:
    """Asked once for all rows, or in each step where they would take too much memory."""
    longest = max(range(len(asked.lengths)), key=asked.lengths.__getitem__)
    first = _asked(asked, teacher, [longest])
    size = sum(tensor.nbytes for tensor in first[:3]) / asked.lengths[longest] * sum(asked.lengths)
    if size > _KEPT_BYTES:
        return lambda batch: _asked(asked, teacher, batch)
    rows: dict[int, list[torch.Tensor]] = {}
    for batch in batches.by_length(asked.lengths, _TOGETHER):
        rows |= dict(zip(batch, _rows(_asked(asked, teacher, batch), [asked.lengths[row] for row in batch]), strict=True))
    return lambda batch: _laid([rows[row] for row in batch], first)


def _asked(asked: Feed, teacher: torch.nn.Module, batch: Sequence[int]) -> Handed:
    import torch

    with torch.no_grad():
        asked.answered(batch)
    return taken(teacher)


def _rows(handed: Handed, lengths: Sequence[int]) -> list[list[torch.Tensor]]:
    """q, k and v of each row without its padding, [tokens, heads, d], on the CPU."""
    padding = [max(lengths) - length for length in lengths]
    return [[tensor[at, :, :tensor.shape[2] - beyond].transpose(0, 1).cpu().clone() for tensor in handed[:3]]
            for at, beyond in enumerate(padding)]


def _laid(rows: Sequence[Sequence[torch.Tensor]], like: Handed) -> Handed:
    """The rows side by side, padded with zeros."""
    import torch

    query, key, value = (torch.nn.utils.rnn.pad_sequence(list(tensors), batch_first=True).transpose(1, 2).to(like.query.device)
                         for tensors in zip(*rows, strict=True))
    return Handed(query, key, value, None, like.scaling)


def _attend(layer: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None,
            scaling: float | None = None, dropout: float = 0.0, **_: Any) -> tuple[torch.Tensor, None]:
    """Plain attention, as transformers calls it; the layer keeps what it was given."""
    layer.handed = Handed(query, key, value, attention_mask, scaling or query.shape[-1] ** -0.5)
    return softmax.heads(layer, query, key, value, attention_mask, scaling, dropout)


def _base(model: Any) -> Any:
    """The transformers model inside PEFT's wrapper, or the model itself."""
    return getattr(model, "get_base_model", lambda: model)()


def _holders(base: Any) -> list[Any]:
    return [part for part in layers_of(base)[-1].modules() if "handed" in vars(part)]
