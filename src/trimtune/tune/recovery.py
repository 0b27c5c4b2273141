"""The fit that mends a trimmed model: all its weights learn again, from the rows and, if asked for, from its parent's answers,
layer states and attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune import parts
from trimtune.tasks._inputs import reading_in

if TYPE_CHECKING:
    import torch

    from trimtune.tune.checkpoint import Checkpoints


@dataclass(frozen=True)
class Setting:
    """What a study gives all its trims, beside the model.

    Args:
        rows: the folder of the data step.
        max_length: tokens kept of a row.
        precision: of fits, `auto` or a number format.
        class_weights: `none` or `balanced`.
    """

    rows: Path
    task: str = "text_classification"
    max_length: int = 128
    batch_size: int = 32
    precision: str = "auto"
    class_weights: str = "none"
    seed: int = 0


def recover(module: torch.nn.Module, source: Path, setting: Setting, learning_rate: float, epochs: int, *,
            folder: Path | None = None, teacher: torch.nn.Module | None = None, share: float = 0.5,
            temperature: float = 2.0, states: float = 0.0, stands_for: Sequence[int] = (), attention: float = 0.0,
            extra: Sequence[str] = (), asks: Path | None = None, keep: Checkpoints | None = None) -> dict[str, Any]:
    """Train all parameters of a trimmed module in place, at its best epoch by validation; returns the fit's facts.

    A language model hands out the states before its output layer from then on, as trims have it.

    Args:
        source: the folder whose tokenizer reads the rows.
        learning_rate: the highest one; it falls to zero over the `epochs`.
        folder: the one that the trim is being made in: a trim that is killed then goes on in the middle of this fit.
        keep: the checkpoints of this fit, for a trim that makes several; None takes those of `folder`.
        teacher: a model in eval mode whose answers are `share` of the loss, softened by `temperature` (see distilling.py).
            Its weights may end rounded to the fit's number format.
        states: weight of the squared distance from the teacher's layer states; `stands_for` names the teacher's layer
            for each of the module's.
        attention: weight of the divergence from what the teacher's last attention looks at (see relations.py).
        extra: texts without labels, which the teacher alone answers.
        asks: the folder whose tokenizer reads the rows for the teacher, where that is another than `source`.

    Raises:
        TrimtuneError: `attention` is above 0, and can't be compared in these models.
    """
    import torch

    from trimtune.tune import checkpoint, device, distilling, feeds, first_token, fitting, gelu, heap, precision, relations
    from trimtune.tune.loop import train
    from trimtune.tune.trainable import Learning

    heap.prepare()
    part = parts.load("task", setting.task)
    fitting.set_seed(setting.seed)
    fitting.quiet(module).requires_grad_(True)
    gelu.fuse(module)
    first_token.narrow(module, every_query=attention > 0)
    for model in (module, teacher):
        if model is not None and hasattr(part, "split_off"):
            part.split_off(model)
    splits, chosen, reading = part.rows.load(setting.rows), precision.choose(setting.precision), reading_in(source)
    loss = part.loss_of(setting.class_weights, splits)
    if extra:
        splits = distilling.with_texts(splits, extra)
    feed, validation = feeds.token_feeds(module, part, source, splits, setting.max_length, reading)
    if teacher is not None and (share or states or attention):
        if states or attention:
            first_token.narrow(teacher, every_query=attention > 0)
        if attention:
            relations.watch_both(module, teacher)
        device.put(teacher, precision.dtype(chosen))
        asked, _ = feeds.token_feeds(teacher, part, asks or source, splits, setting.max_length, reading)
        feed = distilling.told(feed, asked)
        loss = part.taught(share, temperature) if hasattr(part, "taught") else distilling.loss_of(loss, share, temperature)
        if states:
            feed = distilling.beside(feed, module, asked, teacher, stands_for)
            loss = distilling.with_distance(loss, states)
        if attention:
            feed = relations.beside(feed, module, asked, teacher)
            loss = distilling.with_distance(loss, attention)
    learning = Learning(module, feed.tokens | validation.tokens, precision.dtype(chosen))
    masters = learning.masters(learning_rate, epochs * -(-len(feed.lengths) // setting.batch_size))
    at_once = fitting.rows_at_once(module, setting.batch_size, feed, validation, chosen)
    fitted = train(module, masters, feed, validation, loss, part.score, epochs=epochs, batch_size=setting.batch_size,
                   at_once=at_once, seed=setting.seed, keep=keep or (checkpoint.of(folder) if folder else None))
    facts = {**fitted.facts(), **fitting.memory_facts(module, at_once), "learning_rate": learning_rate, "precision": chosen}
    learned = learning.values(fitted.best, masters.decay(fitted.best_steps))
    for model in (module, teacher):
        if model is not None:
            model.to("cpu", torch.float32)
    learning.undo()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(learned[name])
    module.eval().requires_grad_(False)
    return facts
