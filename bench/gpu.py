"""LoRA and full fits of a 1.2B-parameter Llama shape (random weights) on the GPU at hand, ours and Trainer + peft in turns.

    python bench/gpu.py                        # writes bench/results/gpu-<name>.json
    python bench/gpu.py --shape llama-tiny --rows 2 --width 64 --steps 3    # tries the bench itself, on any machine

Attention, torch.compile and, for the peer, a frozen base in bf16 are tried first; the best of both take turns. MFU is the share
of the timed bf16 product of 8192 × 8192 that the model's FLOP come to (4 per frozen parameter and token, 6 per trained one;
attention left out).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from trimtune.measure import _machine
from trimtune.tune import device

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama-1b")
    parser.add_argument("--methods", default="lora,full")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--out", type=Path, help="default: bench/results/gpu-<name of the device>.json")
    asked = parser.parse_args()
    name = device.facts(device.here())["device"]
    out = asked.out or HERE / "results" / f"gpu-{re.sub(r'[^a-z0-9]+', '-', name.lower())}.json"
    peak, report = product_tflops(), {"device": name, "machine": _machine.describe(), "torch": torch.__version__}
    report["product_tflops"] = peak
    for method in asked.methods.split(","):
        ways = [["--attention", attention, *compiled] for attention in ("sdpa", "eager") for compiled in ([], ["--compile"])]
        theirs = [["--peer", *way, *half] for way in ways for half in ([[], ["--half-base"]] if method == "lora" else [[]])]
        tried = {who: [fit(asked, method, way) for way in mine] for who, mine in (("ours", ways), ("peer", theirs))}
        report[method] = {"tried": tried}
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        best = {who: max(lines, key=lambda line: line.get("tokens_per_s", 0.0)) for who, lines in tried.items()}
        rounds = [{who: fit(asked, method, line["flags"]) for who, line in best.items()}
                  for _ in range(asked.rounds)]
        if any("cause" in line for both in rounds for line in both.values()):
            print(f"{method}: no ratio, since a fit failed")
            continue
        memory = "device_memory_mb" if "device_memory_mb" in rounds[0]["ours"] else "peak_memory_mb"
        report[method] |= {
            "rounds": rounds,
            "times_best": statistics.median(both["ours"]["tokens_per_s"] / both["peer"]["tokens_per_s"] for both in rounds),
            "memory_ratio": rounds[0]["ours"][memory] / rounds[0]["peer"][memory],
            "mfu": {who: statistics.median(both[who]["tokens_per_s"] * both[who]["flop_per_token"] / (peak * 1e12)
                                           for both in rounds) for who in best}}
        line = report[method]
        print(f"{method:5} {rounds[-1]['ours']['tokens_per_s']:,.0f} tokens/s, {line['times_best']:.2f} × the peer's best at "
              f"{line['memory_ratio']:.2f} × its memory, MFU {line['mfu']['ours']:.0%} (its: {line['mfu']['peer']:.0%})",
              flush=True)
        out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"written to {out}")


def fit(asked: argparse.Namespace, method: str, flags: list[str]) -> dict[str, Any]:
    """One fit in a process of its own; one that fails (out of memory, say) says so in `cause`."""
    command = [sys.executable, str(HERE / "lm.py"), "--shape", asked.shape, "--method", method, "--rows", str(asked.rows),
               "--width", str(asked.width), "--steps", str(asked.steps), "--warmup", "5", "--precision", "bf16", *flags]
    one_gpu = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]}  # Trainer would take all
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | one_gpu)
    told: dict[str, Any] = {"flags": flags}
    if done.returncode:
        told["cause"] = ([*done.stderr.strip().splitlines()] or [f"exit status {done.returncode}"])[-1][:300]
    else:
        told |= json.loads(done.stdout.splitlines()[-1])
    said = told.get("tokens_per_s", told.get("cause"))
    print(f"  {method} {' '.join(flags)}: {said}", flush=True)
    return told


def product_tflops(size: int = 8192, seconds: float = 1.0) -> float:
    """What a bf16 product reaches here, in TFLOP/s (smaller on a CPU)."""
    place = device.here()
    size = size if place.type != "cpu" else 1024
    a, b = (torch.randn(size, size, device=place).to(torch.bfloat16) for _ in range(2))
    a @ b
    device.wait(place)
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(10):
            a @ b
        device.wait(place)
        count += 10
    return 2 * size**3 * count / (time.perf_counter() - started) / 1e12


if __name__ == "__main__":
    main()
