"""Packed rows: the same loss, gradients and fits as padded ones, and no row that sees another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.engines.language_models import small_gpt2

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.study.document import Place
from trimtune.study.uses import refuse_packing, uses
from trimtune.tasks import causal_lm as task
from trimtune.tasks._inputs import Inputs
from trimtune.tune import batches, feeds, fitting, memory, packing

STORIES = Path(__file__).parents[3] / "shared" / "data" / "models" / "stories260K"
LENGTHS = (13, 5, 22, 2, 9, 17, 1, 30)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "llama" and not STORIES.exists():
        pytest.skip("needs stories260K beside the checkout")
    return STORIES if request.param == "llama" else small_gpt2(tmp_path_factory.mktemp("gpt2"))


def model_of(base: Path, method: str = "full", attention: str = "eager", **config: Any) -> Any:
    """Without dropout, and with an adapter that is far from nothing."""
    part = parts.load("method", method)
    torch.manual_seed(0)
    model = fitting.prepared(task, part, part.Config(**config), base, 0, attention)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    return model


def rows(lengths: tuple[int, ...] = LENGTHS) -> Inputs:
    draw = torch.Generator().manual_seed(1)
    ids = [torch.randint(3, 500, (length,), generator=draw).tolist() for length in lengths]
    targets = [[-100 if at < len(row) // 3 + 1 else token for at, token in enumerate(row)] for row in ids]
    return Inputs(ids, targets, [sum(token >= 0 for token in row) for row in targets], 0)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40))
def test_each_row_stands_once_and_packing_never_takes_more_than_padding(lengths: list[int]) -> None:
    found = packing.lines(lengths, range(len(lengths)))
    assert sorted(row for line in found for row in line) == [*range(len(lengths))]
    assert all(sum(lengths[row] for row in line) <= max(lengths) for line in found)
    assert len(found) <= len(lengths)
    assert 0 <= packing.saved(lengths, [range(len(lengths))]) < 1


def test_positions_begin_anew_with_each_row() -> None:
    found = packing.laid([[5, 6, 7], [8, 9], [3, 3, 3, 3, 3, 3]], [[2], [0, 1]], 0)
    assert found["input_ids"].tolist() == [[3] * 6, [5, 6, 7, 8, 9, 0]]
    assert found["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 0]]


@pytest.mark.parametrize("attention", ["eager", "sdpa", "eager_float32"])
@pytest.mark.parametrize("method", ["full", "lora", "ia3"])
def test_loss_and_gradients_are_those_of_padded_rows(base: Path, method: str, attention: str) -> None:
    model, inputs, found = model_of(base, method, attention, **({"dropout": 0.0} if method == "lora" else {})), rows(), []
    for packed in (False, True):
        model.train().zero_grad()
        feed = feeds.token_feed(model, task, inputs, packed)
        loss = task.loss(*feed.answered(range(len(LENGTHS))))
        loss.backward()
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        found.append((float(loss.detach()), [parameter.grad.clone() for parameter in learned]))
    (padded, padded_gradients), (together, gradients) = found
    assert together == pytest.approx(padded, abs=1e-5)
    assert max(float(gradient.abs().max()) for gradient in gradients) > 1e-3
    for one, other in zip(gradients, padded_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()) + 1e-7)


def states(model: Any, lines: list[list[int]], ids: list[list[int]]) -> torch.Tensor:
    """What the model says of the last row in the last line, [T, D]."""
    with torch.no_grad():
        out = model.eval()(**packing.laid(ids, lines, 0), use_cache=False).logits[-1]
    end = sum(len(ids[row]) for row in lines[-1])
    return out[end - len(ids[lines[-1][-1]]):end]


def apart(model: Any) -> float:
    """The most that a row's answers change with its neighbors and its place, as a share of the largest of them."""
    inputs = rows((9, 4, 6, 9, 20))
    alone = states(model, [[0]], inputs.ids)
    places = [[[1, 0]], [[2, 0]], [[3, 2, 0]], [[4], [1, 0]], [[1, 2, 3, 0]]]
    return max(float((states(model, lines, inputs.ids) - alone).abs().max() / alone.abs().max()) for lines in places)


@pytest.mark.parametrize("attention", ["eager", "sdpa", "eager_float32"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_row_is_answered_alike_whatever_its_neighbors_and_its_place(base: Path, method: str, attention: str) -> None:
    model = model_of(base, method, attention)
    assert apart(model) < 1e-5
    assert packing.keeps_apart(model)


@pytest.mark.parametrize("fault", ["plain causal attention over the line", "positions that run on"])
def test_a_leak_is_seen(base: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = packing.laid

    def leaking(*words: Any) -> dict[str, torch.Tensor]:
        found = whole(*words)
        if fault.startswith("plain"):
            return {**found, "attention_mask": torch.ones_like(found["input_ids"])}
        return {**found, "position_ids": torch.arange(found["input_ids"].shape[1]).expand_as(found["input_ids"])}

    monkeypatch.setattr(packing, "laid", leaking)
    model = model_of(base)
    assert apart(model) > 1e-2
    assert not packing.keeps_apart(model)
    lengths = [40, 20, 10, 10] * 4
    assert not packing.chosen("auto", model, True, lengths, 8)
    with pytest.raises(TrimtuneError, match="others stand in its line"):
        packing.chosen("on", model, True, lengths, 8)


def test_windows_stay_inside_their_rows() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    model = MistralForCausalLM(MistralConfig(vocab_size=512, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                             num_attention_heads=4, num_key_value_heads=2, sliding_window=4,
                                             initializer_range=0.4))
    assert apart(model) < 1e-5
    assert packing.keeps_apart(model)


def test_a_model_that_counts_places_in_the_line_is_left_alone() -> None:
    from transformers import BloomConfig, BloomForCausalLM

    torch.manual_seed(0)
    model = BloomForCausalLM(BloomConfig(vocab_size=512, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.4))
    assert not packing.keeps_apart(model)


def test_auto_packs_where_padding_is_left(base: Path) -> None:
    model, alike, unlike = model_of(base), [20] * 64, [64, 32, 16, 16] * 2
    assert not packing.chosen("auto", model, True, alike, 8)
    assert packing.chosen("auto", model, True, unlike, 8)
    assert packing.chosen("on", model, True, alike, 8)
    assert not packing.chosen("off", model, True, unlike, 8)
    assert not packing.chosen("auto", model, False, unlike, 8)
    virtual = model_of(base, "prompt")
    assert not packing.chosen("auto", virtual, True, unlike, 8)
    with pytest.raises(TrimtuneError, match=r"(?s)packing: on.*virtual tokens.*Allowed.*auto, off"):
        packing.chosen("on", virtual, True, unlike, 8)


@pytest.mark.parametrize("method", ["prefix", "prompt", "p_tuning"])
def test_on_is_refused_with_virtual_tokens(method: str) -> None:
    place, chosen = Place("study.yaml") / "fit" / "packing", uses("method", ["lora", method], "causal_lm", Place("tune"))
    refuse_packing("on", "causal_lm", chosen[:1], place)
    refuse_packing("auto", "causal_lm", chosen, place)
    with pytest.raises(TrimtuneError, match=rf"(?s)fit.packing: {method} can't be packed.*once per row.*Write packing: auto"):
        refuse_packing("on", "causal_lm", chosen, place)


def test_on_is_refused_for_rows_that_are_no_language_models() -> None:
    with pytest.raises(TrimtuneError, match="the rows of text_classification can't be packed"):
        refuse_packing("on", "text_classification", (), Place("fit") / "packing")


@pytest.mark.parametrize("at_once", [1, 3])
def test_accumulated_pieces_equal_the_padded_batch(base: Path, at_once: int) -> None:
    from trimtune.tune.parallel import ALONE

    model, inputs, gradients = model_of(base), rows(), []
    for packed, rows_ in ((False, 0), (True, at_once)):
        model.train().zero_grad()
        feed = feeds.token_feed(model, task, inputs, packed)
        for piece, weight in ALONE.pieces([0, 1, 2, 3, 4, 5, 7], rows_, feed.counts):
            (task.loss(*feed.answered(piece)) * weight).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for whole, accumulated in zip(*gradients, strict=True):
        torch.testing.assert_close(accumulated, whole, rtol=1e-4, atol=1e-4 * float(whole.abs().max()) + 1e-7)


def test_recomputed_blocks_keep_rows_apart(base: Path) -> None:
    model, inputs, gradients = model_of(base), rows(), []
    for recomputed in (False, True):
        if recomputed:
            memory.recompute(model)
        model.train().zero_grad()
        task.loss(*feeds.token_feed(model, task, inputs, True).answered(range(len(LENGTHS)))).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-4, atol=1e-6)


def test_a_feed_tells_the_places_that_a_batch_takes(base: Path) -> None:
    model, inputs = model_of(base), rows((10, 5, 5, 4))
    assert feeds.token_feed(model, task, inputs).positions([0, 1, 2]) == 30
    assert feeds.token_feed(model, task, inputs, True).positions([0, 1, 2]) == 20
    assert batches.padding([10, 5, 5], [[0, 1, 2]]) == pytest.approx(1 / 3)
