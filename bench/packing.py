"""Training steps on padded and on packed rows of a language model, in turns, on the same batches.

    OMP_NUM_THREADS=2 python bench/packing.py --rows pairs.csv            # columns mr and ref, as E2E NLG has them
    python bench/packing.py --rows pairs.csv --model folder --methods lora full

Four sets of rows: the pairs themselves, and plain texts of 10 to 250 tokens made of them (`even`: 2,000 evenly drawn, `tail`:
few long among many short ones, `few`: 64 rows); each in batches of like lengths as fits have them, and shuffled. Prints per
line the share of padding, what packing leaves of the positions, and padded seconds over packed ones (above 1: packed is faster).
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from trimtune import parts
from trimtune.tasks import causal_lm
from trimtune.tasks._inputs import Inputs
from trimtune.tune import batches, device, fitting, heap, packing, precision, trainable
from trimtune.tune.attention import usual
from trimtune.tune.feeds import Feed, token_feed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True, help="a model folder, or with --gpt2 a tokenizer's")
    parser.add_argument("--gpt2", action="store_true", help="a GPT-2 of 4 layers and 256 channels with random weights")
    parser.add_argument("--methods", nargs="+", default=["lora", "full"])
    parser.add_argument("--sizes", nargs="+", type=int, default=[8, 16, 32])
    parser.add_argument("--sets", nargs="+", default=["pairs", "even", "tail", "few"])
    parser.add_argument("--batches", type=int, default=6, help="timed per line, spread over the lengths")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    heap.prepare()
    if asked.gpt2:
        asked.model = gpt2(asked.model, asked.model.parent / "gpt2_256")
    chosen, sets = precision.choose(asked.precision), rows_of(asked.rows, AutoTokenizer.from_pretrained(asked.model))
    print(f"{'rows':7} {'method':6} {'batch':>5} {'order':8} {'padding':>7} {'left':>6} {'attention':13} {'ratio':>6}")
    for name in asked.sets:
        ids = sets[name]
        inputs = Inputs(ids, [[-100, *row[1:]] for row in ids], [len(row) - 1 for row in ids], 0)
        attention = usual(round(statistics.fmean(map(len, ids))), chosen)
        for method in asked.methods:
            part = parts.load("method", method)
            model = fitting.prepared(causal_lm, part, part.Config(), asked.model, 0, attention)
            assert packing.keeps_apart(model)
            learning = trainable.Learning(model, {token for row in ids for token in row}, precision.dtype(chosen))
            for size in asked.sizes:
                for order, make in (("alike", batches.order), ("shuffled", batches.plain_order)):
                    plan = make(list(map(len, ids)), size, 0, 0)
                    line = {"rows": name, "method": method, "batch": size, "order": order,
                            "padding": batches.padding(list(map(len, ids)), plan),
                            "left": 1 - packing.saved(list(map(len, ids)), plan), "attention": attention, "precision": chosen,
                            "ratio": ratio(model, learning, inputs, plan, asked.batches, asked.rounds)}
                    print(f"{name:7} {method:6} {size:5} {order:8} {line['padding']:7.1%} {line['left']:6.1%} {attention:13} "
                          f"{line['ratio']:6.2f}  {json.dumps(line)}", flush=True)


def ratio(model: Any, learning: Any, inputs: Inputs, plan: list[list[int]], count: int, rounds: int) -> float:
    """Padded seconds over packed ones of the same batches, each the sum of its shortest over the rounds; they take turns."""
    masters = learning.masters(1e-6, 1000)
    plan = sorted(plan, key=lambda batch: max(len(inputs.ids[row]) for row in batch))
    plan = [plan[at] for at in sorted({len(plan) * (2 * at + 1) // (2 * count) for at in range(count)})]
    feeds = [token_feed(model, causal_lm, inputs, packed) for packed in (False, True)]
    took: list[list[list[float]]] = [[[] for _ in plan] for _ in feeds]
    model.train()
    for turn in range(rounds + 1):
        for at, batch in enumerate(plan):
            for kind, feed in enumerate(feeds):
                seconds = step(feed, batch, masters, device.of(model))
                if turn:
                    took[kind][at].append(seconds)
    padded, packed = (sum(map(min, each)) for each in took)
    return padded / packed


def step(feed: Feed, batch: list[int], masters: Any, place: torch.device) -> float:
    started = time.perf_counter()
    causal_lm.loss(*feed.answered(batch)).backward()
    masters.step()
    device.wait(place)
    return time.perf_counter() - started


def rows_of(path: Path, tokenizer: Any) -> dict[str, list[list[int]]]:
    """Token ids: 4,000 pairs, and texts of 10 to 250 tokens cut from them."""
    with path.open(encoding="utf-8", newline="") as file:
        texts = [f"{row['mr']}\n{row['ref']}" for row in csv.DictReader(file)]
    draw = random.Random(0)
    draw.shuffle(texts)
    pairs = [tokenizer(text)["input_ids"] for text in texts[:4000]]
    stream = [token for row in pairs for token in row]

    def cut(lengths: list[int]) -> list[list[int]]:
        starts = [draw.randrange(len(stream) - length) for length in lengths]
        return [stream[at:at + length] for at, length in zip(starts, lengths, strict=True)]

    return {"pairs": pairs, "even": cut([draw.randint(10, 250) for _ in range(2000)]),
            "tail": cut([min(250, int(10 * draw.paretovariate(1.0))) for _ in range(2000)]),
            "few": cut([draw.randint(10, 250) for _ in range(64)])}


def gpt2(tokenizer: Path, folder: Path) -> Path:
    """A GPT-2 of 4 layers of 256 channels beside this tokenizer's files."""
    import tempfile

    folder = Path(tempfile.mkdtemp()) / folder.name
    loaded = AutoTokenizer.from_pretrained(tokenizer)
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=len(loaded), n_positions=256, n_embd=256, n_layer=4, n_head=8)).save_pretrained(folder)
    loaded.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
