"""int8_static: settings that travel with the folder, and engines that answer each row by itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engines.small_classifier import small_classifier

from trimtune import parts
from trimtune.engines import (
    _export,
    _onnx_calibration,
    _onnx_graph,
    _onnx_session,
    _onnx_static,
    _openvino_int8,
    onnx_runtime,
    openvino_ir,
)
from trimtune.errors import TrimtuneError
from trimtune.records import Candidate, Use
from trimtune.study import data
from trimtune.tasks import text_classification as task
from trimtune.trim import _calibrated, int8_static
from trimtune.tune.recovery import Setting

KINDS = ("minmax", "percentile", "entropy", "mse")
session = partial(_onnx_session.opened, threads=1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_classifier(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def texts(helpdesk_rows: Path) -> list[str]:
    return data.load(helpdesk_rows).train.texts


@pytest.fixture(scope="module")
def trimmed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder that the trim hands on, by its config."""

    def make(**config: Any) -> Path:
        folder = tmp_path_factory.mktemp("trimmed")
        assert int8_static.run(folder, source, int8_static.Config(**config).model_dump(), Setting(folder)) == {}
        return folder

    return make


@pytest.fixture(scope="module")
def made(source: Path, trimmed: Callable[..., Path], texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(runnable folder, facts) of an engine by what it is asked for."""

    @cache
    def make(numerics: str, engine: str = "onnx_runtime", **config: Any) -> tuple[Path, dict[str, Any]]:
        folder, given = tmp_path_factory.mktemp("made"), trimmed(**config) if numerics == "int8_static" else source
        fixed = {"precision": "fp32"} if engine == "openvino_ir" else {}
        return folder, parts.load("engine", engine).export(folder, given, fixed, numerics, texts, 64)

    return make


@pytest.fixture(scope="module")
def graph(source: Path) -> Any:
    """The float32 graph, as int8_static finds it."""
    return _onnx_graph.classifier(task.load_model(source, attention="eager"), 20, 64, "test")


@pytest.fixture(scope="module")
def inputs(source: Path, helpdesk_rows: Path) -> dict[str, np.ndarray]:
    return task.encode(task.load_tokenizer(source), data.load(helpdesk_rows).test.texts, 64)


def test_the_settings_lie_beside_what_the_source_had(source: Path, trimmed: Callable[..., Path]) -> None:
    folder = trimmed(calibration="entropy", rows=7)
    assert _calibrated.read(folder) == int8_static.Config(calibration="entropy", rows=7)
    assert not (source / _calibrated.FILE).exists()
    assert (folder / "model.safetensors").samefile(source / "model.safetensors")


def test_other_settings_replace_those_of_a_trim_before(trimmed: Callable[..., Path], tmp_path: Path) -> None:
    before = trimmed(rows=7)
    int8_static.run(tmp_path, before, {"rows": 8}, Setting(tmp_path))
    assert [_calibrated.read(folder).rows for folder in (before, tmp_path)] == [7, 8]


def test_a_folder_without_settings_is_refused(source: Path) -> None:
    with pytest.raises(TrimtuneError, match=r"no calibration\.json"):
        _calibrated.read(source)


def test_rows_are_spread_over_a_sorted_file() -> None:
    rows = [f"{number}" for number in range(1000)]
    assert _calibrated.chosen(rows, int8_static.Config(rows=4)) == ["0", "250", "500", "750"]
    assert _calibrated.chosen(rows, int8_static.Config(rows=5000)) == rows
    with pytest.raises(TrimtuneError, match="without training rows"):
        _calibrated.chosen([], int8_static.Config())


def test_engines_without_it_say_so() -> None:
    one = Candidate(method=Use(name="full"), trims=(Use(name="int8_static"),), engine=Use(name="torch_eager"))
    assert "torch_eager has no int8_static" in str(_export.why_not(one, "text_classification"))


def test_batches_hold_rows_of_one_length_and_all_of_them() -> None:
    ids = [[7] * length for length in (3, 5, 3, 3, 9, 5, 0)]
    found = list(_onnx_calibration.batches(ids, 6))
    assert [batch["input_ids"].shape for batch in found] == [(2, 3), (1, 3), (1, 5), (1, 5), (1, 9)]
    assert all(batch["attention_mask"].all() for batch in found)


def test_weights_are_off_by_half_a_step_at_most() -> None:
    weight_KN = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32) * np.array([1, 2, 0, 30, 1e-3, 5], np.float32)
    for most in (127, 63):
        codes_KN, scale_N = _onnx_static.rounded(weight_KN, most)
        assert np.abs(codes_KN).max(0).tolist() == [most, most, 0, most, most, most]
        assert (np.abs(codes_KN * scale_N - weight_KN) <= 0.501 * scale_N).all()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_answers_near_to_float(kind: str, graph: Any, trimmed: Callable[..., Path], texts: list[str], tmp_path: Path,
                                  inputs: dict[str, np.ndarray]) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(graph.SerializeToString())
    wanted = session(path).run(None, inputs)[0]
    before = graph.SerializeToString(deterministic=True)
    form = _onnx_static.unsigned(127 if onnx_runtime.has_vnni() else 63)
    grids, facts = _onnx_calibration.calibrated(graph, path, session, trimmed(calibration=kind, rows=50), texts, 64, form.grid)
    assert graph.SerializeToString(deterministic=True) == before
    path.write_bytes(before)
    onnx_runtime._quantize_static(path, grids, form)
    got = session(path).run(None, inputs)[0]
    assert np.abs(got - wanted).mean() <= 0.3 * wanted.std()
    assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > 0.95
    assert (facts["calibration"], facts["calibration_rows"]) == (kind, 50)


@pytest.mark.slow
def test_the_facts_and_the_files_size_say_what_runs(made: Any) -> None:
    folder, facts = made("int8_static")
    assert (facts["numerics"], facts["precision"], facts["packed"]) == ("int8_static", "int8", "packed")
    assert (facts["calibration"], facts["calibration_rows"]) == ("mse", 96)
    assert json.loads((folder / "engine.json").read_text()) == facts
    plain, dynamic = ((made(numerics)[0] / "model.onnx").stat().st_size for numerics in ("plain", "int8"))
    assert (folder / "model.onnx").stat().st_size < min(0.3 * plain, 1.05 * dynamic)


@pytest.mark.slow
def test_a_rows_answer_does_not_depend_on_its_batch(made: Any, inputs: dict[str, np.ndarray]) -> None:
    moved = {}
    for numerics in ("int8_static", "int8"):
        run = onnx_runtime.load(made(numerics)[0], 1)
        together = run(inputs)
        alone = np.concatenate([run({name: values[row:row + 1] for name, values in inputs.items()}) for row in range(48)])
        moved[numerics] = np.abs(together - alone).max() / together.std()
    assert moved["int8_static"] <= 1e-3
    assert moved["int8"] > 10 * moved["int8_static"], "scales per batch are what this is to replace"


@pytest.mark.slow
def test_padding_changes_no_answer(made: Any, inputs: dict[str, np.ndarray]) -> None:
    run = onnx_runtime.load(made("int8_static")[0], 1)
    lengths = inputs["attention_mask"].sum(1)
    unpadded = np.concatenate([run({name: values[row:row + 1, :lengths[row]] for name, values in inputs.items()})
                               for row in range(48)])
    together = run(inputs)
    assert np.abs(together - unpadded).mean() <= 1e-2 * together.std(), "beyond a value that rounding turns over"


@pytest.mark.slow
def test_every_product_of_the_blocks_runs_in_integers(made: Any, tmp_path: Path) -> None:
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(made("int8_static")[0] / "model.onnx", options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["MatMulIntegerToFloat"] == 6, kinds
    assert not any("DynamicQuantize" in kind for kind in kinds)


@pytest.mark.slow
def test_the_collector_sees_what_the_layers_see(source: Path, texts: list[str], graph: Any, tmp_path: Path) -> None:
    """Against hooks in PyTorch on one padded batch whose padded places are cut out."""
    import torch

    model: Any = task.load_model(source, attention="eager")
    inputs = task.encode(task.load_tokenizer(source), texts, 64)
    wanted, keep, layer = {}, torch.from_numpy(inputs["attention_mask"]).bool(), model.bert.encoder.layer[0]
    for part in (layer.attention.self.query, layer.attention.output.dense, layer.intermediate.dense, layer.output.dense):
        part.register_forward_pre_hook(lambda part, given: wanted.update({part: given[0][keep].numpy()}))
    with torch.inference_mode():
        model(**{name: torch.from_numpy(values) for name, values in inputs.items()})

    names = list(dict.fromkeys(node.input[0] for node, _ in _onnx_static.products(graph)))
    ready = _onnx_calibration._handing_out(names, graph, tmp_path / "graph.onnx", session)
    ids = [row[:length].tolist() for row, length in zip(inputs["input_ids"], inputs["attention_mask"].sum(1), strict=True)]
    found = _onnx_calibration.gathered(ready, names, _onnx_calibration.batches(ids, 200), counted=True)
    assert len(names) == 4
    for name, values in zip(names, wanted.values(), strict=True):
        assert found[name].counts.sum() == values.size, "every value of every token, and nothing of the padding"
        assert found[name].highest == pytest.approx(max(0, values.max()), abs=1e-4)
        assert found[name].lowest == pytest.approx(min(0, values.min()), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["minmax", "percentile", "mse"])
def test_openvino_answers_near_to_float(kind: str, made: Any, inputs: dict[str, np.ndarray]) -> None:
    folder, facts = made("int8_static", "openvino_ir", calibration=kind, rows=32)
    got, wanted = openvino_ir.load(folder, 1)(inputs), onnx_runtime.load(made("plain")[0], 1)(inputs)
    assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > 0.95
    assert (facts["precision"], facts["calibration"], facts["calibration_rows"]) == ("int8", kind, 32)


@pytest.mark.slow
def test_openvino_has_no_entropy(trimmed: Callable[..., Path], texts: list[str]) -> None:
    openvino_ir._openvino()
    with pytest.raises(TrimtuneError, match="NNCF has no such calibration"):
        _openvino_int8.static(None, trimmed(calibration="entropy"), texts, 64)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["minmax", "percentile"])
def test_openvino_keeps_nothing_of_a_row_and_finds_what_nncf_finds(kind: str, source: Path, trimmed: Callable[..., Path],
                                                                   texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    openvino_ir._openvino()
    import torch
    from nncf.common.tensor_statistics.collectors import MeanAggregator

    held, mean = [], MeanAggregator.aggregate
    model = task.load_model(source)
    for name, values in model.named_parameters():
        if name.endswith("bias"):  # at zero they are folded away, and no bias is corrected
            torch.nn.init.normal_(values)

    def watched(self: Any) -> Any:
        held.append((self._collected_samples, len(self._container)))
        return mean(self)

    def constants() -> list[Any]:
        graph = openvino_ir._traced(model, 64)
        found, _ = _openvino_int8.static(graph, trimmed(calibration=kind, rows=40), texts, 64)
        return [node.data for node in found.get_ops() if node.get_type_name() == "Constant"]

    monkeypatch.setattr(MeanAggregator, "aggregate", watched)
    ours = constants()
    assert held and set(held) == {(40, 1)}
    held.clear()
    monkeypatch.setattr(_openvino_int8, "_running_means", nullcontext)
    theirs = constants()
    assert set(held) == {(40, 40)}, "NNCF keeps every row's; when it no longer does, _running_means can go"
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        if one.dtype == np.int8:
            assert (one == other).mean() > 0.999, "a weight that SmoothQuant moved across a rounding edge"
        else:
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
