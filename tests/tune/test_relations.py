"""What a teacher's last attention looks at: counted by hand from each row alone, in whatever batches the rows come."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtune.errors import TrimtuneError
from trimtune.study import data
from trimtune.tasks import causal_lm, text_classification
from trimtune.tasks._inputs import Inputs
from trimtune.tune import first_token, memory, relations
from trimtune.tune.feeds import Feed, token_feed, token_feeds
from trimtune.tune.parallel import ALONE

SMALL = {"vocab_size": 60, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "pad_token_id": 0,
         "initializer_range": 0.25, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {}, "roberta": {"max_position_embeddings": 40}, "electra": {},
    "distilbert": {"vocab_size": 60, "dim": 32, "n_heads": 4, "hidden_dim": 48, "pad_token_id": 0,
                   "initializer_range": 0.25},
    "llama": {"num_key_value_heads": 2}, "mistral": {"num_key_value_heads": 2, "sliding_window": 4},
    "gpt2": {"vocab_size": 60, "n_embd": 32, "n_head": 4, "n_positions": 40, "initializer_range": 0.25}}
DECODERS = ("llama", "mistral", "gpt2")
VALUES = {"distilbert": "v_lin", "gpt2": "c_attn", "llama": "v_proj", "mistral": "v_proj"}
ROWS = [[5, 7, 9, 11, 13, 3, 8], [4, 6, 2], [1, 2, 3, 4, 5], [9, 8, 7, 6, 5, 4, 3], [8, 5, 2]]


def model_of(kind: str, layers: int, seed: int) -> Any:
    """Weights of standard deviation 0.25, so that tokens look at some more than at others."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    torch.manual_seed(seed)
    given = FAMILIES[kind] if "vocab_size" in FAMILIES[kind] else {**SMALL, **FAMILIES[kind]}
    config = AutoConfig.for_model(kind, num_hidden_layers=layers, num_labels=3, **given)
    auto = AutoModelForCausalLM if kind in DECODERS else AutoModelForSequenceClassification
    return auto.from_config(config, attn_implementation="eager").eval()


def rows_of(kind: str) -> tuple[Any, Inputs]:
    if kind not in DECODERS:
        return text_classification, Inputs(ROWS, [0, 1, 2, 0, 1], [1] * 5, 0)
    return causal_lm, Inputs(ROWS, [[-100, *row[1:]] for row in ROWS], [len(row) - 1 for row in ROWS], 0)


def pair(kind: str) -> tuple[Any, Any]:
    return model_of(kind, 1, 0), model_of(kind, 2, 1)


def fed(student: Any, teacher: Any, kind: str) -> Feed:
    relations.watch_both(student, teacher)
    feed, asked = (token_feed(model, *rows_of(kind)) for model in (student, teacher))
    return relations.beside(feed, student, asked, teacher)


def by_hand(student: Any, teacher: Any, kind: str, row: list[int]) -> float:
    """Of one row, alone in its batch, from what transformers itself gives out."""
    tokens, logs = torch.tensor([row]), []
    for model in (student, teacher):
        seen: list[torch.Tensor] = []
        layer = [module for name, module in model.named_modules() if name.endswith(VALUES.get(kind, "value"))][-1]
        hook = layer.register_forward_hook(lambda _, __, out, seen=seen: seen.append(out))
        with torch.no_grad():
            looked_at = model(input_ids=tokens, output_attentions=True).attentions[-1][0]
        hook.remove()
        value_GTd = seen[0][0][:, -8 * FAMILIES[kind].get("num_key_value_heads", 4):].unflatten(-1, (-1, 8)).transpose(0, 1)
        scores = value_GTd @ value_GTd.transpose(1, 2) / 8**0.5
        logs.append((looked_at.log(), scores.masked_fill(looked_at[:1] == 0, -torch.inf).log_softmax(-1)))
    parts = [(theirs.exp() * (theirs - mine)).nan_to_num(0).sum(-1).mean() for mine, theirs in zip(*logs, strict=True)]
    return float(sum(parts))


@pytest.mark.parametrize("kind", FAMILIES)
def test_it_is_what_each_row_alone_gives_by_transformers_own_maps(kind: str) -> None:
    student, teacher = pair(kind)
    task, rows = rows_of(kind)
    alone = [by_hand(student, teacher, kind, row) for row in ROWS]
    feed = fed(student, teacher, kind)
    assert min(alone) > 0.05
    for batch in ([0, 3], [1], [2, 0, 1, 4]):  # without padding, a row alone, with padding
        learned = [rows.counts[row] for row in batch]
        expected = sum(alone[row] * count for row, count in zip(batch, learned, strict=True)) / sum(learned)
        assert feed.answered(batch)[-1].item() == pytest.approx(expected, rel=1e-3)
    plain = token_feed(pair(kind)[0], task, rows)
    torch.testing.assert_close(feed.answered([2, 0, 1])[0], plain.answered([2, 0, 1])[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_pieces_of_a_batch_and_blocks_run_again_have_its_gradients(kind: str) -> None:
    student, teacher = pair(kind)
    again, found = copy.deepcopy(student), []
    memory.recompute(again)
    for model, at_once in ((student, 0), (student, 2), (again, 2)):
        feed = fed(model.train(), copy.deepcopy(teacher), kind)
        model.zero_grad()
        for rows, weight in ALONE.pieces(range(5), at_once, feed.counts):
            (feed.answered(rows)[-1] * weight).backward()
        found.append({name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None})
    assert len(found[0]) > 4
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_what_the_teacher_sees_is_the_same_kept_or_asked_each_time(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = fed(*pair(kind), kind)
    monkeypatch.setattr(relations, "_KEPT_BYTES", 0)
    asked = fed(*pair(kind), kind)
    for batch in ([0, 3], [2, 0, 1, 4]):
        torch.testing.assert_close(kept.answered(batch)[-1], asked.answered(batch)[-1])


def test_a_block_cut_behind_its_attention_has_the_same_maps() -> None:
    whole, cut = fed(*pair("bert"), "bert"), pair("bert")
    assert all(first_token.narrow(model, every_query=True) for model in cut)
    found, wanted = (feed.answered([2, 0, 1]) for feed in (fed(*cut, "bert"), whole))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prompt", "prefix", "lora"])
def test_a_student_that_is_its_teacher_is_not_apart(kind: str, tuned: Callable[[str], Path], helpdesk_rows: Path) -> None:
    """Virtual tokens before the rows, or keys before theirs; a student that was moved is apart and has gradients."""
    student, teacher = (text_classification.load_model(tuned(kind)) for _ in range(2))
    relations.watch_both(student, teacher)
    feeds = [token_feeds(model, text_classification, tuned(kind), data.load(helpdesk_rows), 32)[0]
             for model in (student, teacher)]
    feed = relations.beside(feeds[0], student, feeds[1], teacher)
    assert feed.answered([5, 0, 17])[-1].item() == pytest.approx(0, abs=1e-5)
    student.requires_grad_(True)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    apart = feed.answered([5, 0, 17])[-1]
    apart.backward()
    assert apart.item() > 1e-3
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert any(parameter.grad is not None for parameter in student.parameters())


def test_other_attentions_and_unlike_heads_are_refused() -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    for kind, more in {"mpnet": {}, "gemma2": {"head_dim": 8, "num_key_value_heads": 2, "attn_logit_softcapping": 0.05,
                                               "query_pre_attn_scalar": 1}}.items():
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, num_hidden_layers=2, **SMALL, **more)
        with pytest.raises(TrimtuneError, match=f"(?i)attention was given, and that of {kind}.* isn't the plain softmax"):
            relations.watch(AutoModelForSequenceClassification.from_config(config, attn_implementation="eager"))
    fewer = model_of("bert", 1, 0)
    attention = fewer.bert.encoder.layer[-1].attention
    for layer in (attention.self.query, attention.self.key, attention.self.value):
        layer.weight, layer.bias = (torch.nn.Parameter(whole[:24].clone()) for whole in (layer.weight, layer.bias))
    attention.output.dense.weight = torch.nn.Parameter(attention.output.dense.weight[:, :24].clone())
    with pytest.raises(TrimtuneError, match="unlike heads: 4 on 4 keys, and 3 on 3"):
        relations.watch_both(fewer, model_of("bert", 2, 1))
