"""In which form does ONNX Runtime run static int8 fastest? The same grids, four ways of writing the products, taking turns.

    python bench/static_forms.py --home folder            # with tuned/ and rows/, as bench/calibration.py leaves them

- qdq: DequantizeLinear around a MatMul, standard operators, made one product of integers when the session starts;
- to_float: that product as ONNX Runtime's own operator, MatMulIntegerToFloat, with the bias inside;
- integer: MatMulInteger, Cast and Mul, standard operators of older sets;
- qlinear: QLinearMatMul, whose results leave in 8 bits too; it needs ranges of results, here minmax of the same rows.

Beside them dynamic int8 and float32. Milliseconds are medians; `moved` is the mean |Δlogit| to float32 by the logits' spread.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections import Counter
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from onnx import helper, numpy_helper

from trimtune.engines import _clipping, _onnx_calibration, _onnx_graph, _onnx_session, _onnx_static, onnx_runtime
from trimtune.measure import _machine
from trimtune.process import threads
from trimtune.study import data
from trimtune.tasks import text_classification as task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows, tuned = data.load(asked.home / "rows"), asked.home / "tuned"
    tokenizer = task.load_tokenizer(tuned)
    graph = _onnx_graph.classifier(task.load_model(tuned, attention="eager"), 20, 128, "bench")
    with TemporaryDirectory() as scratch:
        home = Path(scratch)
        session = partial(_onnx_session.opened, threads=threads())
        found = _onnx_static.products(graph)
        names = list(dict.fromkeys([node.input[0] for node, _ in found] + [node.output[0] for node, _ in found]))
        ids = tokenizer(rows.train.texts[:300])["input_ids"]
        seen = _onnx_calibration.gathered(_onnx_calibration._handing_out(names, graph, home / "graph.onnx", session), names,
                                          _onnx_calibration.batches(ids, 300), counted=True)
        grids = {name: one.affine(_clipping.clip_of(one, "mse", 0)) for name, one in seen.items()}
        files = written(graph, grids, home, tuned)
        runs = {name: onnx_runtime._runner(path, threads()) for name, path in files.items()}
        lines = []
        for batch, rounds in ((1, asked.rounds), (32, asked.rounds // 3)):
            inputs = [task.encode(tokenizer, rows.test.texts[at:at + batch], 128) for at in range(0, 10 * batch, batch)]
            lines += compared(runs, inputs, rounds, f"{batch} rows")
    if asked.json:
        asked.json.write_text(json.dumps({"machine": _machine.describe(), "threads": threads(), "lines": lines}, indent=1) + "\n",
                              encoding="utf-8")


def written(graph: Any, grids: _onnx_static.Grids, home: Path, tuned: Path) -> dict[str, Path]:
    """A file for each form."""
    files = {name: home / f"{name}.onnx" for name in ("float32", "dynamic", "qdq", "to_float", "integer", "qlinear")}
    files["float32"].write_bytes(graph.SerializeToString())
    onnx_runtime._quantize(copy.deepcopy(graph), files["dynamic"], "int8", tuned)
    form = _onnx_static.unsigned(127 if onnx_runtime.has_vnni() else 63)
    files["qdq"].write_bytes(graph.SerializeToString())
    onnx_runtime._quantize_static(files["qdq"], grids, form)
    import onnx

    for name in ("to_float", "integer", "qlinear"):
        other = onnx.load(files["qdq"])
        rewrite(other, name, grids)
        files[name].write_bytes(other.SerializeToString())
    return files


def rewrite(graph: Any, form: str, grids: _onnx_static.Grids) -> None:
    """Turn each DequantizeLinear, DequantizeLinear, MatMul of the file into another form."""
    if form == "to_float":
        graph.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    makers = {node.output[0]: node for node in graph.graph.node}
    uses = Counter(name for node in graph.graph.node for name in node.input)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    biases = {}  # of a product: the Add that reads it with a constant
    for node in graph.graph.node:
        if node.op_type == "Add":
            for one, other in (node.input, list(node.input)[::-1]):
                product = one in makers and makers[one].op_type == "MatMul" and uses[one] == 1
                if product and other in constants and constants[other].ndim == 1:
                    biases[one] = (node.output[0], other)
    nodes, gone = [], {biases[name][0] for name in biases} if form == "to_float" else set()
    for node in graph.graph.node:
        x, w = ((makers.get(name) for name in node.input) if node.op_type == "MatMul" else (None, None))
        if node.output[0] in gone:
            continue
        if x is None or w is None or x.op_type != "DequantizeLinear" or w.op_type != "DequantizeLinear":
            nodes.append(node)
            continue
        nodes = [one for one in nodes if one.output[0] not in (x.output[0], w.output[0])]
        out = node.output[0]
        if form == "to_float":
            out, bias = biases.get(out, (out, ""))
            inputs = [x.input[0], w.input[0], x.input[1], w.input[1], x.input[2], w.input[2], *([bias] if bias else [])]
            nodes.append(helper.make_node("MatMulIntegerToFloat", inputs, [out], domain="com.microsoft"))
        elif form == "integer":
            scale = numpy_helper.from_array(constants[x.input[1]] * constants[w.input[1]], f"{out}_scales")
            graph.graph.initializer.append(scale)
            nodes += [helper.make_node("MatMulInteger", [x.input[0], w.input[0], x.input[2], w.input[2]], [f"{out}_sums"]),
                      helper.make_node("Cast", [f"{out}_sums"], [f"{out}_floats"], to=1),
                      helper.make_node("Mul", [f"{out}_floats", scale.name], [out])]
        else:
            scale, zero = grids[out]
            graph.graph.initializer.extend(_onnx_static._grid(f"{out}_y", np.float32(scale), np.uint8(zero)))
            nodes += [helper.make_node("QLinearMatMul", [*x.input, *w.input, f"{out}_y_scale", f"{out}_y_zero"], [f"{out}_y"]),
                      helper.make_node("DequantizeLinear", [f"{out}_y", f"{out}_y_scale", f"{out}_y_zero"], [out])]
    nodes = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


def compared(runs: dict[str, Any], inputs: list[Any], rounds: int, what: str) -> list[dict[str, Any]]:
    """Milliseconds of each run by turns, and how far it moves the answers."""
    wanted = np.concatenate([runs["float32"](one) for one in inputs])
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds):
        for name, run in runs.items():
            for one in inputs:
                started = time.perf_counter()
                run(one)
                if turn:
                    taken[name].append((time.perf_counter() - started) * 1000)
    lines = []
    for name, run in runs.items():
        got = np.concatenate([run(one) for one in inputs])
        lines.append({"what": what, "form": name, "ms": round(median(taken[name]), 3),
                      "moved": round(float(np.abs(got - wanted).mean() / wanted.std()), 4)})
        print(lines[-1], flush=True)
    return lines


if __name__ == "__main__":
    main()
