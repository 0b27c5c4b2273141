from __future__ import annotations

from pathlib import Path

from trimtune.study import read
from trimtune.study.expand import expand


def test_every_chain_in_the_studys_order() -> None:
    study = read.resolve({"name": "mail", "data": "helpdesk", "tune": ["lora", {"lora": {"r": 4}}],
                          "trim": ["none", ["prune_ffn", "int8"]],
                          "engine": ["torch_eager", "onnx_runtime"]}, "study", Path())
    assert [candidate.name for candidate in expand(study)] == [
        "lora@torch_eager", "lora@onnx_runtime", "lora+prune_ffn+int8@torch_eager", "lora+prune_ffn+int8@onnx_runtime",
        "lora(r=4)@torch_eager", "lora(r=4)@onnx_runtime", "lora(r=4)+prune_ffn+int8@torch_eager",
        "lora(r=4)+prune_ffn+int8@onnx_runtime"]


def test_skip_takes_out_what_its_patterns_name(tmp_path: Path) -> None:
    given = {"name": "s", "data": "helpdesk", "tune": ["head", "lora"], "trim": ["none", "int8"], "engine": ["torch_eager"]}
    found = expand(read.resolve({**given, "skip": ["head+*"]}, "study", tmp_path))
    assert [one.name for one in found] == ["head@torch_eager", "lora@torch_eager", "lora+int8@torch_eager"]
