"""GGUF files of GPT-2's shape (124M, random weights) under llama.cpp against transformers.generate, greedy, one row, on the CPU.

    OMP_NUM_THREADS=2 python bench/gguf_speed.py --tokenizer FOLDER --threads 2 --rounds 3

All take turns in one process. Prints one JSON line per runner: new tokens per second (median and best of the rounds, the prompt
counted in) and the megabytes of its weights. On a busy machine take `--threads 1 --clock cpu`: threads that wait for each other
count as work otherwise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from trimtune.engines import gguf_llamacpp, torch_eager
from trimtune.engines._decoding import generate

FORMATS = {"gguf F16": ("plain", "fp16"), "gguf Q8_0": ("int8", "auto"), "gguf Q4_K_M": ("int4", "auto")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder with GPT-2's tokenizer")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=32, help="tokens")
    parser.add_argument("--new", type=int, default=64, help="tokens")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall", help="cpu: seconds of this process")
    asked = parser.parse_args()
    clock = time.perf_counter if asked.clock == "wall" else time.process_time
    torch.manual_seed(0)
    torch.set_num_threads(asked.threads)
    with tempfile.TemporaryDirectory() as home:
        base = Path(home, "base")
        model = GPT2LMHeadModel(GPT2Config()).eval()
        model.save_pretrained(base)
        AutoTokenizer.from_pretrained(asked.tokenizer).save_pretrained(base)
        prompt = np.random.default_rng(0).integers(0, 50257, asked.prompt).tolist()
        runners: dict[str, tuple[Callable[[], Any], float]] = {}
        ids = torch.tensor([prompt])
        settings = dict(do_sample=False, max_new_tokens=asked.new, min_new_tokens=asked.new, pad_token_id=0)
        runners["transformers.generate fp32"] = (lambda: model.generate(ids, **settings), _megabytes(base))
        torch_eager.export(made(home, "torch"), base, {"precision": "fp32"}, "plain", [], 128, "causal_lm")
        for name, (numerics, precision) in FORMATS.items():
            facts = gguf_llamacpp.export(made(home, name), base, {"precision": precision}, numerics, [], 128)
            print(json.dumps({"exported": name, **{key: facts[key] for key in ("types", "difference")}}), flush=True)
        for name in ("torch", *FORMATS):
            decoder: Any = (torch_eager if name == "torch" else gguf_llamacpp).load(Path(home, name), asked.threads)
            runners["torch_eager fp32" if name == "torch" else name] = (
                lambda decoder=decoder: generate(decoder, [prompt], (), asked.new), _megabytes(Path(home, name)))
        seconds: dict[str, list[float]] = {name: [] for name in runners}
        for _ in range(asked.rounds + 1):
            for name, (run, _) in runners.items():
                started = clock()
                with torch.inference_mode():
                    run()
                seconds[name].append(clock() - started)
        for name, (_, megabytes) in runners.items():
            taken = seconds[name][1:]  # the first round warms up
            print(json.dumps({"runner": name, "tokens_per_s": round(asked.new / statistics.median(taken), 1),
                              "best": round(asked.new / min(taken), 1), "mb": megabytes}))


def made(home: str, name: str) -> Path:
    Path(home, name).mkdir()
    return Path(home, name)


def _megabytes(folder: Path) -> float:
    return round(sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".gguf", ".safetensors")) / 1e6, 1)


if __name__ == "__main__":
    main()
