"""What a teacher adds to a fit: its answers to the rows and the states of its layers, beside the rows' labels.

    L = (1 - a) · CE(z, y) + a · τ² · KL(softmax(z_t / τ) ‖ softmax(z / τ)) + b · 1/M Σ_m d(h_m, h_g(m))
    d(h, g) = Σ_t |h_t - g_t|² / Σ_t |g_t|²

z, z_t: logits [B, C] of student and teacher. h_m: what leaves the student's layer m, [B, T, D]; g(m): the teacher's layer that
it stands for. t runs over a row's tokens without padding. Each term is a mean over rows; a row without a label has no CE.

Sources: Hinton et al. 2015 (arXiv 1503.02531), section 2, for the answers; Jiao et al. 2020, TinyBERT (arXiv 1909.10351),
section 3.1, for the squared error of states. Here it is a share of the teacher's square, so that b means the same in models
whose states are large and small. The teacher answers every row once, before the fit. Its states would fill the memory, so
there it runs beside the student, step by step; so do answers that would take more than a gigabyte.
Of a language model the first two terms are means over the learned tokens (`tasks/_chunked_teacher.py`), and what is kept of the
teacher's answers are the states before its output layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from trimtune.tune import batches
from trimtune.tune.feeds import Answered, Feed
from trimtune.tune.layers import layers_of

if TYPE_CHECKING:
    import torch

NO_LABEL = -1
_TOGETHER = 32
"""rows that the teacher answers in one pass"""
_KEPT_BYTES = 2**30
"""of a teacher's answers at most; GPT-2's states before 300,000 tokens in float32 are so much"""


def with_texts(splits: Any, texts: Sequence[str]) -> Any:
    """The rows with more training texts, which have no label."""
    train = replace(splits.train, texts=[*splits.train.texts, *texts], labels=[*splits.train.labels, *[NO_LABEL] * len(texts)])
    return replace(splits, train=train)


def answers(teacher: Feed) -> torch.Tensor:
    """The teacher's answers to all rows, on the CPU: logits [N, C], or of a language model its states [Σ counts, D] before each
    learned token, those of a row together."""
    import torch

    found: dict[int, torch.Tensor] = {}
    with torch.inference_mode():
        for batch in batches.by_length(teacher.lengths, _TOGETHER):
            whole = teacher.answered(batch)[0].cpu()
            found |= dict(zip(batch, whole.split([teacher.counts[row] for row in batch]), strict=True))
    return torch.cat([found[row] for row in range(len(found))]).clone()


def taught(feed: Feed, wanted_NC: torch.Tensor, *rest: Any) -> Feed:
    """The feed with what the teacher answered, as one more of what the loss takes; and then the `rest`, the same for all rows."""
    import torch

    wanted = wanted_NC.split(feed.counts)

    def answered(batch: Sequence[int]) -> Answered:
        found = feed.answered(batch)
        return (*found, torch.cat([wanted[row] for row in batch]).to(found[0].device), *rest)

    return replace(feed, answered=answered)


def told(feed: Feed, teacher: Feed) -> Feed:
    """The feed with the teacher's answers: asked once per row and kept, or in each step where they would take too much memory."""
    import torch

    first, *rest = _one_answer(teacher)
    if first.nbytes / max(1, len(first)) * sum(teacher.counts) <= _KEPT_BYTES:
        return taught(feed, answers(teacher), *rest)

    def answered(batch: Sequence[int]) -> Answered:
        with torch.no_grad():
            wanted = teacher.answered(batch)[:-1]
        return (*feed.answered(batch), *wanted)

    return replace(feed, answered=answered)


def _one_answer(teacher: Feed) -> Answered:
    """What the teacher answers to one row, without the truth."""
    import torch

    with torch.no_grad():
        return teacher.answered([max(range(len(teacher.counts)), key=teacher.counts.__getitem__)])[:-1]


def beside(feed: Feed, student: torch.nn.Module, asked: Feed, teacher: torch.nn.Module, stands_for: Sequence[int]) -> Feed:
    """The feed with the mean distance [] of the student's layer states from the teacher's, as one more of what the loss takes.

    Args:
        asked: the same rows through the teacher.
        stands_for: the teacher's layer (from 0) that each of the student's stands for, ascending.
    """
    import torch

    mine, theirs = _layers(student), _layers(teacher)
    wanted = [theirs[at] for at in stands_for]

    def answered(batch: Sequence[int]) -> Answered:
        with _watched(mine) as states:
            found = feed.answered(batch)
        with torch.no_grad(), _watched(wanted) as goals:
            asked.answered(batch)
        lengths = [feed.lengths[row] for row in batch]
        return (*found, torch.stack([distance(*pair, lengths) for pair in zip(states, goals, strict=True)]).mean())

    return replace(feed, answered=answered)


def distance(states_BTD: torch.Tensor, goals_BTD: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    """d of the formula above, a mean over rows; in float32.

    Args:
        lengths: tokens of each row. A block that is computed at its first position only has T = 1 (see first_token.py).
    """
    width = min(states_BTD.shape[1], goals_BTD.shape[1])
    states, goals = states_BTD[:, :width].float(), goals_BTD[:, :width].float()
    real_BT = real(width, lengths, states.device)
    apart_BT, size_BT = (states - goals).square().sum(-1), goals.square().sum(-1)
    return ((apart_BT * real_BT).sum(1) / (size_BT * real_BT).sum(1).clamp_min(1e-12)).mean()


def real(width: int, lengths: Sequence[int], place: torch.device) -> torch.Tensor:
    """Which positions [B, width] are no padding. Virtual tokens stand before the rows: `width` is larger by their number."""
    import torch

    ends = torch.tensor(lengths, device=place) + max(0, width - max(lengths))
    return torch.arange(width, device=place) < ends[:, None]


def loss_of(hard: Callable[..., torch.Tensor], share: float, temperature: float) -> Callable[..., torch.Tensor]:
    """The loss of a taught fit: `share` (a) of it is the teacher's, the rest the task's own `hard` loss. A task that has a loss
    with a teacher of its own says so with `taught`.

    It takes logits [B, C], labels [B] (NO_LABEL where a row has none) and the teacher's logits [B, C]; a mean over rows.
    """
    import torch

    def loss(logits_BC: torch.Tensor, labels_B: torch.Tensor, wanted_BC: torch.Tensor) -> torch.Tensor:
        log_BC = (logits_BC.float() / temperature).log_softmax(-1)
        soft = torch.nn.functional.kl_div(log_BC, (wanted_BC.float() / temperature).softmax(-1), reduction="batchmean")
        total = share * temperature**2 * soft
        known = labels_B != NO_LABEL
        count = int(known.sum())
        return total + (1 - share) * hard(logits_BC[known], labels_B[known]) * (count / len(known)) if count else total

    return loss


def with_distance(loss: Callable[..., torch.Tensor], weight: float) -> Callable[..., torch.Tensor]:
    """A loss that takes a distance (of states, or of attention) behind all else, and adds `weight` times of it."""
    return lambda *given: loss(*given[:-1]) + weight * given[-1]


def _layers(model: Any) -> torch.nn.ModuleList:
    """Of a transformers model, or of the one inside PEFT's wrapper."""
    return layers_of(getattr(model, "get_base_model", lambda: model)())


@contextmanager
def _watched(layers: Iterable[torch.nn.Module]) -> Iterator[list[torch.Tensor]]:
    """The list that what leaves each of these layers is put into, [B, T, D], while a model runs once."""
    seen: list[torch.Tensor] = []

    def keep(_: torch.nn.Module, __: Any, out: Any) -> None:
        seen.append(out[0] if isinstance(out, tuple) else out)

    hooks = [layer.register_forward_hook(keep) for layer in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
