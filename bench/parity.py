"""The parity gate of every engine and number format, hop by hop, for a Llama-like and a GPT-2-like model.

    python bench/parity.py --shared ../shared --json bench/results/parity.json

LoRA is tuned for an epoch on E2E NLG: beside stories260K, and beside a small GPT-2 that is trained on 20 times as many rows
first. The study is then shipped once per candidate, so each row is what `trimtune ship` printed; a candidate that it refuses
says so. GGUF files are read back by llama.cpp where that is installed.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from trimtune import api
from trimtune.errors import StepFailed
from trimtune.measure import _machine
from trimtune.ship.bundle import ship

HEAD = ("candidate", "hop", "perplexity", "after", "relative", "same token", "clear", "max |Δlogit|")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="the folder with data/e2e_nlg and data/models")
    parser.add_argument("--only", choices=["llama-like", "gpt2-like"])
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    found: dict[str, Any] = {"machine": _machine.describe()}
    with TemporaryDirectory() as home:
        data = rows(asked.shared, Path(home), asked.rows)
        for name in [asked.only] if asked.only else ["llama-like", "gpt2-like"]:
            model = (asked.shared / "data/models/stories260K" if name == "llama-like" else
                     small_gpt2(asked.shared, Path(home), 20 * asked.rows))
            found[name] = hops(model, data, Path(home), name)
            print(f"\n{name}\n" + "  ".join(f"{head:>12}" for head in HEAD))
            for row in found[name]:
                print("  ".join(f"{cell:>12}" for cell in row))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def rows(shared: Path, home: Path, count: int) -> dict[str, str]:
    """The first rows of each split, as files."""
    found = {}
    for split, name, share in (("train", "trainset", count), ("validation", "devset", count // 5),
                               ("test", "testset_w_refs", count // 5)):
        source, path = shared / "data/e2e_nlg" / f"{name}.csv", home / f"{split}.csv"
        path.write_text("".join(source.read_text(encoding="utf-8").splitlines(keepends=True)[:share + 1]), encoding="utf-8")
        found[split] = str(path)
    return found


def small_gpt2(shared: Path, home: Path, count: int) -> Path:
    """A GPT-2 of 4 layers with GPT-2's own vocabulary, trained in full on that many rows, from random weights."""
    torch.manual_seed(0)
    base, out, own = home / "gpt2", home / "gpt2-trained", home / "more"
    own.mkdir()
    GPT2LMHeadModel(GPT2Config(n_embd=128, n_layer=4, n_head=4, n_positions=512)).save_pretrained(base)
    AutoTokenizer.from_pretrained(shared / "data/models/gpt2_tokenizer").save_pretrained(base)
    api.tune(rows(shared, own, count)["train"], model=str(base), method="full", learning_rate=1e-3, epochs=3, task="causal-lm",
             out=out)
    return out


def hops(model: Path, data: dict[str, str], home: Path, name: str) -> list[list[str]]:
    """A row per candidate and hop."""
    study = {"name": name, "model": str(model), "task": "causal-lm", "data": data, "tune": ["lora"],
             "trim": ["none", "int8", "int4"], "fit": {"epochs": 1, "max_length": 320},
             "engine": ["torch_eager", "openvino_ir", "onnx_runtime", "gguf_llamacpp"],
             "budget": {"trials": 1, "seeds": 1, "minutes": 10}}
    result, table = api.run(study, runs=home / "runs"), []
    for row in result.rows:
        if row.status != "measured":
            table.append([row.name, f"{row.status}: {row.cause}"])
            continue
        try:
            manifest = ship(home / "runs" / name, home / "bundles" / row.name, row.name)
        except StepFailed as failure:
            table.append([row.name, failure.cause.splitlines()[0]])
            continue
        table += [[row.name, *cells(hop)] for hop in manifest["parity"]]
    return table


def cells(hop: dict[str, Any]) -> list[str]:
    shown = (("perplexity", ".4f"), ("perplexity_after", ".4f"), ("relative", ".1e"), ("agreement", ".2%"),
             ("clear_agreement", ".2%"), ("max_difference", ".2g"))
    return [hop["name"], *("-" if hop[key] is None else format(hop[key], how) for key, how in shown)]


if __name__ == "__main__":
    main()
