"""Broken study files: each is refused with file, line and key, with what is allowed and with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.study.faults import fault

from trimtune.study import read

HEAD = "name: mail\ndata: helpdesk\n"

CASES: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    # file as a whole
    "empty": ("", ("study.yaml", "empty")),
    "only comments": ("# later\n", ("study.yaml:1", "no content")),
    "a list": ("- name: mail\n", ("study.yaml:1", "key: value")),
    "a word": ("helpdesk\n", ("study.yaml:1", "key: value")),
    "latin-1": ("name: müde\n".encode("latin-1"), ("study.yaml: row 1", "0xfc", "UTF-8")),
    "utf-16": (HEAD.encode("utf-16"), ("study.yaml", "UTF-16")),
    "a workbook": (b"PK\x03\x04\x14\x00\x06\x00", ("study.yaml", "Excel")),
    "tab": ("name: mail\ndata:\n\ttrain: helpdesk\n", ("study.yaml:3", "tab", "spaces")),
    "open bracket": (HEAD + "tune: [lora\nseed: 1\n", ("study.yaml:4", "brackets")),
    "two documents": (HEAD + "---\nname: two\n", ("study.yaml:3", "one study per file")),
    "tag": (HEAD + "model: !!python/name:os.system ''\n", ("study.yaml:3", "tag", "python")),
    "endless alias": ("name: &a [*a]\n", ("study.yaml", "alias")),
    "growing aliases": ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)),
        ("study.yaml", "aliases")),
    "deep": ("name: " + "[" * 1500, ("study.yaml",)),
    "too large": ("name: mail\n" + "# x\n" * 300_000, ("study.yaml", "trimtune init")),
    # keys
    "unknown key": (HEAD + "tunes: [lora]\n", ("study.yaml:3", "'tunes'", "Did you mean 'tune'?", "prefer")),
    "key twice": (HEAD + "name: post\n", ("study.yaml:3", "'name'", "line 1")),
    "inner key twice": ("name: mail\ndata:\n  train: helpdesk\n  train: helpdesk\n", ("study.yaml:4", "'train'", "line 3")),
    "no name": ("data: helpdesk\n", ("study.yaml:1: name", "nothing was given")),
    "no data": ("name: mail\n", ("study.yaml:1: data", "helpdesk")),
    # values at the top
    "name a number": ("name: 2024\ndata: helpdesk\n", ("study.yaml:1: name", "'2024'", "a whole number")),
    "name a path": ("name: ../up\ndata: helpdesk\n", ("study.yaml:1: name", "'../up'", "name: up")),
    "name hidden": ("name: .store\ndata: helpdesk\n", ("study.yaml:1: name", "'.store'", "name: store")),
    "name reserved": ("name: con\ndata: helpdesk\n", ("study.yaml:1: name", "'con'", "my-study")),
    "name too long": (f"name: {'x' * 90}\ndata: helpdesk\n", ("study.yaml:1: name", "64")),
    "model no hub id": (HEAD + "model: minilmm\n", ("study.yaml:3: model", "'minilmm'", "owner/name")),
    "smaller no hub id": (HEAD + "smaller: minilmm\n", ("study.yaml:3: smaller", "'minilmm'", "owner/name")),
    "smaller a list": (HEAD + "smaller: [minilm]\n", ("study.yaml:3: smaller", "smaller: sentence-transformers/")),
    "smaller the model": (HEAD + "smaller: minilm\n", ("study.yaml:3: smaller", "the study's model itself", "remove the key")),
    "model no folder": (HEAD + "model: ./nowhere\n", ("study.yaml:3: model", "'./nowhere'")),
    "unknown task": (HEAD + "task: text-clasification\n", ("study.yaml:3: task", "Did you mean 'text_classification'?")),
    "unknown prefer": (HEAD + "prefer: speed\n", ("study.yaml:3: prefer", "'speed'", "latency")),
    "throughput of text": (HEAD + "task: causal_lm\nprefer: throughput\n", ("study.yaml:4: prefer", "'throughput'", "latency")),
    "negative seed": (HEAD + "seed: -1\n", ("study.yaml:3: seed", "'-1'", "from 0")),
    "seed a text": (HEAD + "seed: zero\n", ("study.yaml:3: seed", "'zero'")),
    # data
    "no such file": ("name: mail\ndata: {train: trian.csv}\n",
                     ("study.yaml:2: data.train", "trian.csv", "Did you mean train.csv")),
    "bundled misspelled": ("name: mail\ndata: helpdesc\n", ("study.yaml:2: data", "helpdesk")),
    "a folder": ("name: mail\ndata:\n  train: .\n", ("study.yaml:3: data.train", "folder", "train.csv", "trimtune init")),
    "unknown ending": ("name: mail\ndata: {train: notes.txt}\n", ("study.yaml:2: data.train", "'.txt'", ".jsonl")),
    "one file twice": ("name: mail\ndata:\n  train: train.csv\n  test: ./train.csv\n",
                       ("study.yaml:4: data.test", "train.csv", "train too")),
    "unknown split": ("name: mail\ndata: {train: helpdesk, dev: helpdesk}\n", ("study.yaml:2: data.dev", "'dev'", "validation")),
    "train missing": ("name: mail\ndata: {test: train.csv}\n", ("study.yaml:2: data", "'train' is missing")),
    "data a list": ("name: mail\ndata: [train.csv]\n", ("study.yaml:2: data", "a list", "mapping")),
    "path with nul": ('name: mail\ndata: "train\\0.csv"\n', ("study.yaml:2", "NUL")),
    # parts
    "unknown method": (HEAD + "tune:\n  - full\n  - lorra\n",
                       ("study.yaml:5: tune[1]", "'lorra'", "Did you mean 'lora'?", "prefix")),
    "tune a word": (HEAD + "tune: lora\n", ("study.yaml:3: tune", "text", "[lora]")),
    "tune empty": (HEAD + "tune: []\n", ("study.yaml:3: tune", "empty", "lora")),
    "tune nothing": (HEAD + "tune:\n", ("study.yaml:3: tune", "nothing", "lora")),
    "method a number": (HEAD + "tune: [7]\n", ("study.yaml:3: tune[0]", "'7'", "a whole number")),
    "method twice": (HEAD + "tune: [lora, full, lora]\n", ("study.yaml:3: tune[2]", "'lora'", "tune[0]")),
    "method twice by default": (HEAD + "tune: [lora, {lora: {r: 8}}]\n", ("study.yaml:3: tune[1]", "tune[0]")),
    "config key": (HEAD + "tune:\n  - lora:\n      rank: 8\n", ("study.yaml:5: tune[0].lora.rank", "'rank'", "dropout")),
    "config range": (HEAD + "tune:\n  - lora:\n      r: 0\n", ("study.yaml:5: tune[0].lora.r", "'0'", "from 1 to 1024")),
    "config type": (HEAD + "tune: [{lora: {r: many}}]\n",
                    ("study.yaml:3: tune[0].lora.r", "'many'", "a whole number", "Text was given")),
    "config bool for number": (HEAD + "tune: [{lora: {r: true}}]\n",
                               ("study.yaml:3: tune[0].lora.r", "'true'", "a whole number")),
    "config quoted number": (HEAD + 'tune: [{lora: {r: "8"}}]\n', ("study.yaml:3: tune[0].lora.r", "'8'", "Text was given")),
    "config no mapping": (HEAD + "tune: [{lora: 8}]\n", ("study.yaml:3: tune[0].lora", "'8'", "a mapping")),
    "config not indented": (HEAD + "tune:\n  - lora:\n    r: 8\n", ("study.yaml:4: tune[0]", "2 keys", "Indent")),
    "two in one entry": (HEAD + "tune: [{lora: {r: 8}, full: {}}]\n", ("study.yaml:3: tune[0]", "lora, full")),
    "unknown trim": (HEAD + "trim: [int9]\n", ("study.yaml:3: trim[0]", "'int9'", "Did you mean 'int8'?")),
    "int8 not last": (HEAD + "trim:\n  - [int8, prune_ffn]\n",
                      ("study.yaml:4: trim[0][0]", "'int8'", "last", "[prune_ffn, int8]")),
    "none in a chain": (HEAD + "trim: [[none, int8]]\n", ("study.yaml:3: trim[0]", "none", "alone")),
    "empty chain": (HEAD + "trim: [[]]\n", ("study.yaml:3: trim[0]", "none")),
    "cut behind low rank": (HEAD + "trim: [[low_rank, prune_heads]]\n",
                            ("study.yaml:3: trim[0][1]", "two thin layers", "Put 'prune_heads' before 'low_rank'")),
    "zeros before a fit": (HEAD + "trim: [[prune_weights, prune_ffn, int8]]\n",
                           ("study.yaml:3: trim[0][0]", "before 'prune_ffn'", "Put 'prune_weights' behind it")),
    "zeros before a fit that is last": (HEAD + "trim: [[prune_weights, int8_qat]]\n",
                                        ("study.yaml:3: trim[0][0]", "int8_qat", "{int8_qat: {epochs: 0}}")),
    "trim twice in a chain": (HEAD + "trim: [[prune_ffn, prune_ffn]]\n", ("study.yaml:3: trim[0][1]", "twice")),
    "chain twice": (HEAD + "trim: [int8, none, int8]\n", ("study.yaml:3: trim[2]", "trim[0]")),
    "unknown engine": (HEAD + "engine: [onnxruntime]\n", ("study.yaml:3: engine[0]", "Did you mean 'onnx_runtime'?")),
    # fit, budget
    "epochs zero": (HEAD + "fit: {epochs: 0}\n", ("study.yaml:3: fit.epochs", "'0'", "from 1 to 1000")),
    "fit key": (HEAD + "fit: {epoch: 3}\n", ("study.yaml:3: fit.epoch", "Did you mean 'epochs'?")),
    "packing": (HEAD + "fit: {packing: on}\n", ("study.yaml:3: fit.packing", "text_classification can't be packed", "auto or")),
    "packing with virtual tokens": (HEAD + "task: causal-lm\ntune: [lora, prefix]\nfit: {packing: on}\n",
                                    ("study.yaml:5: fit.packing: prefix can't be packed", "Write packing: auto")),
    "precision": (HEAD + "fit: {precision: int8}\n", ("study.yaml:3: fit.precision", "'int8'", "bf16", "Choose one of these")),
    "budget a number": (HEAD + "budget: 20\n", ("study.yaml:3: budget", "'20'", "a mapping")),
    "budget minutes": (HEAD + "budget: {minutes: 0}\n", ("study.yaml:3: budget.minutes", "above 0")),
    "budget infinite": (HEAD + "budget: {minutes: .inf}\n", ("study.yaml:3: budget.minutes", "a number")),
    # require
    "unknown reading": (HEAD + 'require: {latency: "<= 8"}\n', ("study.yaml:3: require.latency", "'latency'", "latency_p50_ms")),
    "reading of another task": (HEAD + 'require: {perplexity: "<= 8"}\n', ("study.yaml:3: require.perplexity", "accuracy")),
    "limit without a sign": (HEAD + "require: {size_mb: 30}\n", ("study.yaml:3: require.size_mb", "'30'", "<=")),
    "limit with a unit": (HEAD + 'require: {size_mb: "<= 30 MB"}\n',
                          ("study.yaml:3: require.size_mb", "'<= 30 MB'", "without a unit")),
    "limit with =": (HEAD + 'require: {size_mb: "= 30"}\n', ("study.yaml:3: require.size_mb", "'= 30'")),
    "limit unquoted": (HEAD + "require:\n  accuracy: >= 0.9\n", ("study.yaml:4", "quotes")),
    "limit in percent": (HEAD + 'require: {accuracy: ">= 90"}\n', ("study.yaml:3: require.accuracy", "fraction", "0.9")),
    "limit below zero": (HEAD + 'require: {size_mb: "<= -5"}\n', ("study.yaml:3: require.size_mb", "never below 0")),
    "limit infinite": (HEAD + 'require: {size_mb: "<= 1e999"}\n', ("study.yaml:3: require.size_mb", "1e999")),
    "limit twice": (HEAD + 'require: {size_mb: ["<= 30", "<= 30"]}\n', ("study.yaml:3: require.size_mb", "twice")),
    "parent of a cost": (HEAD + 'require: {size_mb: "<= parent - 10"}\n',
                         ("study.yaml:3: require.size_mb", "no reading of quality", "accuracy, ")),
    "parent the wrong way": (HEAD + 'require: {accuracy: "<= parent"}\n',
                             ("study.yaml:3: require.accuracy", "'<= parent'", "'>= parent' or '>= parent - NUMBER'")),
    "better than the parent": (HEAD + 'require: {accuracy: ">= parent + 0.01"}\n',
                               ("study.yaml:3: require.accuracy", "its own parent", '">= parent - 0.01"')),
    "a loss in points": (HEAD + 'require: {accuracy: ">= parent - 1"}\n',
                         ("study.yaml:3: require.accuracy", "0.01 is one point")),
    "a loss in percent": (HEAD + 'require: {accuracy: ">= parent - 1%"}\n',
                          ("study.yaml:3: require.accuracy", "'>= parent - 1%'", "0.01 is one point")),
    "sure of what has no interval": (HEAD + 'require: {macro_f1: ">= parent - 0.01 surely"}\n',
                                     ("study.yaml:3: require.macro_f1", "95% interval", "accuracy and perplexity",
                                      "Leave `surely`")),
    "an unknown word behind": (HEAD + 'require: {accuracy: ">= parent - 0.01 certainly"}\n',
                               ("study.yaml:3: require.accuracy", "is no limit", "'>= parent - 0.01'", "surely")),
    "skip a word": (HEAD + "skip: head\n", ("study.yaml:3: skip", "list of patterns")),
    "skip nobody": (HEAD + "skip: [heads*]\n", ("study.yaml:3: skip[0]", "heads*")),
    "skip all": (HEAD + 'skip: ["*"]\n', ("study.yaml:3: skip", "all")),
    "require a list": (HEAD + 'require: ["size_mb <= 30"]\n', ("study.yaml:3: require", "a mapping")),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_refused_in_words(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content, named = CASES[case]
    Path("train.csv").write_text("text,label\na,x\n", encoding="utf-8")
    Path("notes.txt").write_text("a\n", encoding="utf-8")
    Path("study.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    fault(lambda: read.read(Path("study.yaml")), *named)


def test_a_study_that_is_not_there(tmp_path: Path) -> None:
    fault(lambda: read.read(tmp_path / "study.yaml"), "study.yaml", "no such file")
    fault(lambda: read.read(tmp_path), str(tmp_path), "folder")


@pytest.mark.parametrize("text", ["size_mb", "size_mb 25", "<= 25", "", "size<=25", "size_mb<=25<=30", "size_mb<=x"])
def test_limits_from_the_command_line(text: str) -> None:
    from trimtune.study import limits

    fault(lambda: limits.parse(text), "--require")


def test_a_dict_is_checked_as_a_file_is() -> None:
    fault(lambda: read.resolve({"name": "mail", "data": "helpdesk", "tune": ["lorra"]}, "study", Path()), "study: tune[0]",
          "lora")
    fault(lambda: read.resolve({"name": "mail", "data": {"train": object()}}, "study", Path()), "study", "object")
