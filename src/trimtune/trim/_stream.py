"""The stream of an encoder: the D channels that every block reads from and adds to, and what each is worth.

    tables [·, D] + entries [D, E] → norm → blocks: readers [·, D] … writers [D, ·] → norm … → tail [D, D] → last [C, D]

Inner widths (heads · d, neurons) stay. The outputs of the tail (a pooler, a dense layer of the head) are channels of their own.
Which layers these are follows from their shapes and from where they stand; _narrower.py cuts them and tries whether it was so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.errors import TrimtuneError
from trimtune.tasks import text_classification
from trimtune.trim import _drawn, prune_ffn, prune_heads
from trimtune.trim._model_folder import base_of
from trimtune.tune.recovery import Setting

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Stream:
    """Names of modules in the base model.

    Args:
        readers: linear layers whose inputs are the stream, the tail's among them.
        writers: those whose outputs are the stream.
        entries: those of the writers that no norm stands behind (embeddings that are narrower than the stream).
        tail: linear layers [D, D] behind the blocks.
        last: those that read the outputs of the tail.
    """

    norms: list[str]
    tables: list[str]
    readers: list[str]
    writers: list[str]
    entries: list[str]
    tail: list[str]
    last: list[str]


def stream_of(base: Any) -> Stream:
    """Where the stream of an encoder is.

    Raises:
        TrimtuneError: its blocks aren't made of four plain linear layers of attention and two behind them.
    """
    import torch

    try:
        attention, blocks = prune_heads.attention_blocks(base), prune_ffn.feed_forward_blocks(base)
    except TrimtuneError:
        raise refused(base, "has no blocks of plain linear layers, four of attention and two behind it") from None
    width, modules = base.config.hidden_size, dict(base.named_modules())
    readers = [name for inputs, _ in attention for name in inputs] + [up for ups, _ in blocks for up in ups]
    writers = [out for _, out in attention] + [down for _, down in blocks]
    outside = {name: (layer.in_features, layer.out_features) for name, layer in modules.items()
               if isinstance(layer, torch.nn.Linear) and name not in {*readers, *writers}}
    tail = [name for name, shape in outside.items() if shape == (width, width)]
    entries = [name for name, (inputs, outputs) in outside.items() if outputs == width != inputs]
    last = [name for name, (inputs, outputs) in outside.items() if inputs == width != outputs]
    return Stream(norms=[name for name, module in modules.items()
                         if isinstance(module, torch.nn.LayerNorm) and module.normalized_shape == (width,)],
                  tables=[name for name, module in modules.items()
                          if isinstance(module, torch.nn.Embedding) and module.embedding_dim == width],
                  readers=[*readers, *(tail or last)], writers=[*writers, *entries], entries=entries, tail=tail,
                  last=last if tail else [])


def importances(module: torch.nn.Module, stream: Stream, criterion: str, source: Path, rows: int,
                setting: Setting) -> tuple[torch.Tensor, torch.Tensor]:
    """What each channel of the stream is worth, float32 [D], and each output of the tail, [D], or [0] where there is none.

    Args:
        criterion: `activation`, `taylor` or `weight`; the formulas stand in prune_width.
        source: the folder whose tokenizer reads the rows.
    """
    import torch

    base = base_of(module)
    if criterion == "weight":
        matrix = {name: base.get_submodule(name).weight.detach() for name in {*stream.readers, *stream.writers, *stream.tables,
                                                                              *stream.tail, *stream.last}}
        return (_energies([*(matrix[name] for name in (*stream.readers, *stream.tables)),
                           *(matrix[name].T for name in stream.writers)]),
                _energies([*(matrix[name] for name in stream.last), *(matrix[name].T for name in stream.tail)]))
    seen: list[tuple[str, torch.Tensor]] = []

    def keep(name: str, _: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.append((name, output))

    scores: dict[str, torch.Tensor] = {}
    hooks = [base.get_submodule(name).register_forward_hook(partial(keep, name)) for name in (*stream.norms, *stream.tail)]
    module.requires_grad_(criterion == "taylor")
    try:
        for ids_BT, labels_B in _drawn.of_equal_length(source, setting, rows):
            seen.clear()
            with torch.set_grad_enabled(criterion == "taylor"):
                logits_BC = module(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT)).logits
            outputs = [output for _, output in seen]
            states = [state if state.dim() == 3 else state[:, None] for state in outputs]
            if criterion == "taylor":
                loss = text_classification.loss(logits_BC, torch.tensor(labels_B)) * len(labels_B)
                grads = torch.autograd.grad(loss, outputs)
                worth = [(state * grad.view_as(state)).sum(1).abs().sum(0).detach()
                         for state, grad in zip(states, grads, strict=True)]
            else:
                worth = [state.abs().mean(1).square().sum(0) for state in states]
            for (name, _), worth_D in zip(seen, worth, strict=True):  # a norm that is run many times is seen each time
                scores[name] = scores.get(name, 0) + worth_D
    finally:
        module.requires_grad_(False)
        for hook in hooks:
            hook.remove()
    found = {name: score.sqrt() if criterion == "activation" else score for name, score in scores.items()}
    return _sum(found[name] for name in stream.norms if name in found), _sum(found[name] for name in stream.tail if name in found)


def _energies(matrices: Sequence[torch.Tensor]) -> torch.Tensor:
    return _sum(matrix.square().sum(0) / matrix.square().sum().clamp_min(1e-30) for matrix in matrices)


def _sum(found: Any) -> torch.Tensor:
    import torch

    scores = list(found)
    return torch.stack(scores).sum(0) if scores else torch.zeros(0)


def refused(base: Any, why: str, do: str = "Leave prune_width out of `trim`, or use a model such as `minilm`.") -> TrimtuneError:
    return TrimtuneError(f"prune_width: {type(base).__name__} {why}.",
                         "Allowed: BERT-like encoders (BERT, DistilBERT, RoBERTa, ELECTRA, ALBERT …).", do)
