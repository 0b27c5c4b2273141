"""mixed: what is lost is counted without luck, as few layers as must keep more bits, and what is judged is what runs."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from tests.trim.idle import idle

from trimtune.engines import _few_bits_torch, torch_eager
from trimtune.errors import TrimtuneError
from trimtune.ship.predictor import logits_of
from trimtune.study import data
from trimtune.tasks import text_classification as task
from trimtune.trim import _few_bits, _grids, _judges, _mixing, mixed
from trimtune.tune.recovery import Setting

KINDS = ("float", "int8", "int4", "ternary", "binary")
FRAGILE = {f"bert.encoder.layer.{block}.attention.output.dense" for block in (0, 1)}
LENGTH = 32


def with_outliers(source: Path, folder: Path, size: float) -> Path:
    """The same model with one value in 32 of each attention silenced, whose outgoing weights are then huge: no answer needs them,
    but they share their scales with weights that are needed."""

    def change(name: str, tensor: torch.Tensor) -> None:
        if ".attention.self.value." in name:
            tensor[::32] = 0
        elif ".attention.output.dense.weight" in name:
            tensor[:, ::32] = size

    return idle(source, folder, change)


def answered(folder: Path, texts: list[str], run: Any = None) -> np.ndarray:
    """Logits [N, C] of a model folder in plain float32, or of a run."""
    tokenizer, model = task.load_tokenizer(folder), None if run else task.load_model(folder)

    def plain(inputs: dict[str, np.ndarray]) -> Any:
        with torch.inference_mode():
            return model(**{name: torch.from_numpy(ids) for name, ids in inputs.items()}).logits.numpy()

    return logits_of(run or plain, lambda batch: task.encode(tokenizer, batch, LENGTH), texts)


def logits(*rows: list[float]) -> torch.Tensor:
    """Logits of these probabilities."""
    return torch.tensor(rows).log()


def test_what_is_lost_by_hand() -> None:
    """Labels drawn as often as the parent says, so that it is calibrated as it is."""
    parent = logits([0.6, 0.4]).repeat(10, 1)
    changed = torch.cat([logits([0.2, 0.8]).repeat(5, 1), parent[5:]])
    labels = torch.tensor([0, 0, 0, 0, 1, 0, 0, 1, 1, 1])
    assert _judges.sharpness(parent, labels) == pytest.approx(1, abs=1e-6)
    found = _judges.lost(parent, changed, labels)
    assert found.points == pytest.approx(100 * 5 * 0.2 / 10)
    assert (found.worse, found.better, found.observed, found.agreement, found.rows) == (4, 1, 30, 50, 10)
    assert found.divergence == pytest.approx((0.6 * np.log(3) + 0.4 * np.log(1 / 2)) / 2, abs=1e-6)
    same = _judges.lost(parent, parent, labels)
    assert (same.points, same.observed, same.agreement, same.divergence) == (0, 0, 100, 0)


def test_a_parent_that_is_too_unsure_is_calibrated_first() -> None:
    draw = torch.Generator().manual_seed(0)
    parent = 3 * torch.randn(4000, 5, generator=draw)
    labels = parent.softmax(-1).multinomial(1, generator=draw).squeeze(1)
    changed = parent + torch.randn(4000, 5, generator=draw)
    honest, unsure = _judges.lost(parent, changed, labels), _judges.lost(0.2 * parent, changed, labels)
    assert _judges.sharpness(0.2 * parent, labels) == pytest.approx(5, rel=0.1)
    assert unsure.points == pytest.approx(honest.points, rel=0.02)
    assert honest.points == pytest.approx(honest.observed, rel=0.25), "of many rows the labels tell the same"


def test_a_lucky_row_hides_no_lost_one_and_an_unlucky_one_is_no_loss() -> None:
    lucky = _judges.Lost(points=0.9, observed=-0.3, worse=4, better=5, rows=288, agreement=97, divergence=0)
    assert not lucky.within(0.5)
    unlucky = _judges.Lost(points=0.2, observed=0.69, worse=5, better=3, rows=288, agreement=97, divergence=0)
    assert unlucky.within(0.5)
    shown = _judges.Lost(points=0.2, observed=5, worse=16, better=2, rows=288, agreement=90, divergence=0)
    assert not shown.within(0.5), "14 rows are more than chance makes of 18"
    assert _judges.Lost(points=0, observed=0, worse=0, better=0, rows=9, agreement=100, divergence=0).within(0)


@pytest.mark.parametrize("most", [0, 1, 2, 7, 36])
def test_halving_finds_the_fewest(most: int) -> None:
    for needed in range(most + 2):
        asked: list[int] = []

        def holds(count: int, needed: int = needed, asked: list[int] = asked) -> bool:
            asked.append(count)
            return count >= needed

        plain = next((count for count in range(most + 1) if count >= needed), None)
        assert _mixing.fewest(holds, most) == plain
        assert len(asked) == len(set(asked)) <= 2 + max(most, 1).bit_length()


def test_the_order_is_by_damage_per_saved_byte() -> None:
    assert _mixing.by_harm({"a": 3.0, "b": 2.0, "c": 0.0}, {"a": 300, "b": 100, "c": 1}) == ["b", "a", "c"]


@pytest.mark.parametrize("group", _grids.GROUPS4)
def test_weights_on_the_int4_grid_stay_there(group: int) -> None:
    torch.manual_seed(group)
    for weight in (torch.randn(16, 512), torch.rand(16, 512) + 3, torch.randn(16, 512).exp(), torch.randn(16, 512) * 1e-6):
        grid = _grids.on_grid4(weight, group)
        assert torch.equal(_grids.on_grid4(grid, group), grid)
        span = weight.unflatten(1, (-1, group))
        step = (span.amax(2) - span.amin(2)) / 15
        assert ((grid - weight).abs().unflatten(1, (-1, group)).amax(2) <= 0.56 * step).all(), "half a step, and bf16's share"


@pytest.mark.parametrize("kind", KINDS)
def test_the_bytes_are_those_that_the_engine_stores(kind: str) -> None:
    torch.manual_seed(0)
    for shape, group in (((16, 64), 32), ((48, 128), 128), ((16, 64), 64)):
        weight = _mixing.on_grid(torch.randn(shape), kind, group)
        tensors = _few_bits_torch.stored(weight, kind, group)
        assert sum(tensor.nbytes for tensor in tensors.values()) == _mixing.stored_bytes(shape, kind, group)
    assert _mixing.stored_bytes((3, 7), "ternary", 128) == 3 * (2 + 2), "one group where it does not divide the inputs"


def test_layers_are_laid_out_for_a_while_only() -> None:
    torch.manual_seed(0)
    layers = {kind: torch.nn.Linear(64, 16).requires_grad_(False) for kind in KINDS} | {"table": torch.nn.Embedding(5, 64)}
    layers["table"].requires_grad_(False)
    before, x = {name: layer.weight.clone() for name, layer in layers.items()}, torch.randn(3, 64)
    plain = {name: layers[name](x) for name in KINDS}
    formats = {kind: kind for kind in KINDS} | {"table": "int8"}
    with _mixing.laid_out(layers, formats, 32):
        assert torch.equal(layers["float"](x), plain["float"])
        assert torch.equal(layers["table"](torch.tensor([1])), _grids.on_grid8(before["table"])[1:2])
        for kind in KINDS[1:]:
            seen = {"int8": _grids.seen8, "int4": _grids.seen4}.get(kind, lambda inputs: inputs)(x)
            wanted = torch.nn.functional.linear(seen, _mixing.on_grid(before[kind], kind, 32), layers[kind].bias)
            torch.testing.assert_close(layers[kind](x), wanted)
            assert not torch.allclose(wanted, plain[kind], atol=1e-4)
    with pytest.raises(ZeroDivisionError), _mixing.laid_out(layers, formats, 32):
        raise ZeroDivisionError
    assert all(torch.equal(layer.weight, before[name]) for name, layer in layers.items())
    assert all(torch.equal(layers[name](x), plain[name]) for name in KINDS)


def test_a_group_that_no_kernel_takes_is_refused() -> None:
    with pytest.raises(ValidationError, match="group must be one of 32, 64, 128, 256 for int4"):
        mixed.Config(group=48)
    assert mixed.Config(low="ternary", group=48).group == 48


def test_shapes_that_int4_does_not_take_keep_more_bits() -> None:
    inside = {"a.0.x": torch.nn.Linear(64, 16), "a.0.y": torch.nn.Linear(13, 16), "a.1.x": torch.nn.Linear(64, 16)}
    assert mixed._units(inside, mixed.Config(), 32) == {"a.0.x": ["a.0.x"], "a.1.x": ["a.1.x"]}
    assert mixed._units(inside, mixed.Config(unit="block", low="binary"), 32) == {"a.0": ["a.0.x", "a.0.y"], "a.1": ["a.1.x"]}
    with pytest.raises(TrimtuneError, match="none of the 3 linear layers can be int4 in groups of 256"):
        mixed._units(inside, mixed.Config(group=256), 256)


@pytest.mark.slow
def test_the_fragile_layers_keep_more_bits(small: Path, rows: Path, tmp_path: Path) -> None:
    """Uniform int4 breaks the limit; with the layers of the outliers in int8 it holds, on the engine too."""
    source, limit = with_outliers(small, tmp_path / "source", 8.0), 1.0
    facts = mixed.run(tmp_path / "trim", source, mixed.Config(limit=limit).model_dump(), Setting(rows, max_length=LENGTH))
    assert facts["met"]
    assert facts["uniform"]["points"] > 10 > limit >= facts["lost"]["points"]
    assert {*facts["kept"]} == {*list(facts["damage"])[:2]} == FRAGILE
    assert {name for name, kind in facts["formats"].items() if kind == "int8"} == {*facts["kept"], "bert.pooler.dense"}
    assert "caveat" not in facts

    (tmp_path / "engine").mkdir()
    told = torch_eager.export(tmp_path / "engine", tmp_path / "trim", {}, "mixed", [], LENGTH)
    assert (told["packed"], told["precision"], told["matrices"]) == ("packed", "int4+int8", 13)
    assert told["bits_per_weight"] == facts["bits_per_weight"] < 6.5
    validation = data.load(rows).validation
    parent = answered(source, validation.texts)
    runs = answered(tmp_path / "trim", validation.texts, torch_eager.load(tmp_path / "engine", 1))
    found = _judges.lost(torch.from_numpy(parent), torch.from_numpy(runs), torch.tensor(validation.labels))
    assert found.points == pytest.approx(facts["lost"]["points"], abs=0.3)
    assert found.divergence == pytest.approx(facts["lost"]["divergence"], rel=0.2)
    table = 30522 * (64 + 4)
    blocks = sum(layer.weight.numel() for layer in _few_bits.linears(task.load_base(source)).values())
    size = (tmp_path / "engine" / "model.safetensors").stat().st_size
    assert size < table + blocks * facts["bits_per_weight"] / 8 + 64 * 512 + 30_000, "table and positions in int8, norms and head"


@pytest.mark.slow
def test_ternary_without_a_fit_needs_some_layers_in_float(small: Path, rows: Path, tmp_path: Path) -> None:
    config = mixed.Config(low="ternary", high="float", limit=0.5).model_dump()
    facts = mixed.run(tmp_path / "trim", small, config, Setting(rows, max_length=LENGTH))
    assert facts["met"]
    assert facts["uniform"]["points"] > 0.5 >= facts["lost"]["points"]
    assert 0 < len(facts["kept"]) < 12
    damages = list(facts["damage"].values())
    assert all(harm >= 0 for harm in damages)
    sizes = {name: layer.weight.numel() for name, layer in _few_bits.linears(task.load_base(small)).items()}
    harms = [facts["damage"][name] / sizes[name] for name in facts["damage"]]
    assert all(first >= 0.97 * second for first, second in pairwise(harms)), "by damage per saved byte"
    (tmp_path / "engine").mkdir()
    told = torch_eager.export(tmp_path / "engine", tmp_path / "trim", {}, "mixed", [], LENGTH)
    assert (told["packed"], told["precision"]) == ("stored", "fp32")
    assert told["bits_per_weight"] == facts["bits_per_weight"] < 32
    handed, runs = _few_bits.linears(task.load_base(tmp_path / "trim")), _few_bits_torch.read(tmp_path / "engine")
    assert all(torch.equal(runs.get_submodule(name).weight, layer.weight) for name, layer in handed.items())


@pytest.mark.slow
def test_it_says_when_nothing_or_not_even_everything_is_enough(small: Path, rows: Path, tmp_path: Path) -> None:
    setting, few = Setting(rows, max_length=LENGTH), {"unit": "block", "rows": 16}
    facts = mixed.run(tmp_path / "loose", small, mixed.Config(limit=60, **few).model_dump(), setting)
    assert (facts["kept"], facts["met"], facts["judged"], facts["damage_rows"]) == ([], True, [0], 16)
    assert facts["caveat"].startswith("int4 in every block is enough here (")
    assert "as 288 validation rows tell, 60 allowed; " in facts["caveat"]
    assert len(facts["damage"]) == 2
    source = with_outliers(small, tmp_path / "source", 1e4)
    facts = mixed.run(tmp_path / "strict", source, mixed.Config(limit=0, **few).model_dump(), setting)
    assert (facts["met"], facts["judged"], len(facts["kept"])) == (False, [0, 2], 2)
    assert facts["caveat"].startswith("not even all layers in int8 hold the limit (")
    assert set(facts["formats"].values()) == {"int8"}
