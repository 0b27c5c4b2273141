"""Tokens per second of greedy answers on every engine and number format, against transformers' own `generate`.

    python bench/generation.py --shape gpt2 --json bench/results/generation.json

Random weights of a real shape; one process, ways taking turns, so the machine's pace hits all alike. Each way reads a prompt of
32 tokens and writes 32 more, alone and 8 rows together; prefill is part of the time, as it is of `generate`. Ratios are to
`transformers.generate` in float32 with as many threads. `same` is the share of tokens equal to it before the first difference:
random weights leave near ties, so packed formats part early.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from lm import SHAPES
from transformers import AutoConfig, AutoModelForCausalLM

from trimtune import parts
from trimtune.engines._decoding import Decoder, generate
from trimtune.errors import StepFailed, TrimtuneError
from trimtune.measure import _machine
from trimtune.process import threads

PROMPT, NEW = 32, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="gpt2")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokenizer", default=str(Path(__file__).parents[2] / "shared/data/models/gpt2_tokenizer"))
    parser.add_argument("--json", type=Path, help="where the table is written, too")
    asked = parser.parse_args()
    with TemporaryDirectory() as home:
        ways, sizes, lacking = prepared(asked, Path(home))
        prompts = np.random.default_rng(0).integers(5, 30000, (8, PROMPT)).tolist()
        answers = {name: way(prompts) for name, way in ways.items()}
        taken: dict[str, dict[int, list[float]]] = {name: {1: [], 8: []} for name in ways}
        for turn in range(asked.rounds + 1):
            for rows in (1, 8):
                for name, way in ways.items():
                    started = time.perf_counter()
                    way(prompts[:rows])
                    if turn:
                        taken[name][rows].append(rows * NEW / (time.perf_counter() - started))
    first = answers["transformers.generate"]
    peer = {rows: median(taken["transformers.generate"][rows]) for rows in (1, 8)}
    table = [{"way": name, "size_mb": sizes.get(name), "same": same(first, answers[name]),
              **{f"tokens_per_s_{rows}": median(taken[name][rows]) for rows in (1, 8)},
              **{f"ratio_{rows}": median(taken[name][rows]) / peer[rows] for rows in (1, 8)}} for name in ways]
    print(f"{asked.shape}, {PROMPT} + {NEW} tokens, {threads()} threads; tokens/s and ratio to transformers.generate")
    for row in table:
        size = f"{row['size_mb']:8.1f}" if row["size_mb"] else " " * 8
        print(f"{row['way']:26}{size} MB   1 row {row['tokens_per_s_1']:7.1f} {row['ratio_1']:5.2f}×   "
              f"8 rows {row['tokens_per_s_8']:7.1f} {row['ratio_8']:5.2f}×   same {row['same']:.0%}")
    for name, reason in lacking.items():
        print(f"{name}: {reason}")
    if asked.json:
        asked.json.write_text(json.dumps({"machine": _machine.describe(), "shape": asked.shape, "rows": table,
                                          "lacking": lacking}, indent=1) + "\n", encoding="utf-8")


def prepared(asked: argparse.Namespace, home: Path) -> tuple[dict[str, Callable[[Any], Any]], dict[str, float], dict[str, str]]:
    """How each way answers prompts; megabytes of its files; why others can't run."""
    torch.manual_seed(0)
    settings = dict(SHAPES[asked.shape])
    base = home / "base"
    AutoModelForCausalLM.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings)).save_pretrained(base)
    for path in Path(asked.tokenizer).iterdir():
        if path.suffix in {".json", ".txt"} and path.name != "config.json":
            (base / path.name).write_bytes(path.read_bytes())
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()

    def peer(prompts: list[list[int]]) -> list[list[int]]:
        ids = torch.tensor(prompts)
        with torch.inference_mode():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW,
                                 min_new_tokens=NEW, pad_token_id=0)
        found: list[list[int]] = out[:, PROMPT:].tolist()
        return found

    ways: dict[str, Callable[[Any], Any]] = {"transformers.generate": peer}
    sizes, lacking = {}, {}
    for engine in parts.names("engine"):
        part = parts.load("engine", engine)
        reason = part.available()
        for numerics in part.NUMERICS.get("causal_lm", ()):
            name = f"{engine} {numerics}"
            if reason:
                lacking[name] = reason
                continue
            folder = home / name
            folder.mkdir()
            try:
                part.export(folder, base, {}, numerics, [], 128, "causal_lm")
            except (StepFailed, TrimtuneError) as failure:  # weights of two or three values, or zeros, are what a trim leaves
                lacking[name] = str(failure)
                continue
            decoder = part.load(folder, threads())
            ways[name] = partial(answered, decoder)
            sizes[name] = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    return ways, sizes, lacking


def answered(decoder: Decoder, prompts: list[list[int]]) -> list[list[int]]:
    return [answer.tokens for answer in generate(decoder, prompts, (), NEW)]


def same(one: list[list[int]], other: list[list[int]]) -> float:
    """The share of tokens before the first that differs."""
    equal = [int(np.cumprod(np.array(a) == np.array(b)).sum()) for a, b in zip(one, other, strict=True)]
    return sum(equal) / (len(one) * NEW)


if __name__ == "__main__":
    main()
