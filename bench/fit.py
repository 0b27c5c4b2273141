"""Our fits against the peer's (transformers.Trainer + peft, at the best of its flags), in one run, as ratios.

    python bench/fit.py lora full head lm           # minutes; `search` takes a quarter of an hour
    python bench/fit.py lora --rounds 3 --compile   # also tries torch.compile on the peer's best

The peer's precision and attention are tried first; then its best and its defaults take turns with ours. Rows and tokens per
second count real tokens of the training steps. `bound` is what the timed matrix product allows: 4 FLOP (LoRA) or 6 (full) per
token and parameter outside the embeddings. Prints a table and adds to bench/results/fit.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.measure import _machine
from trimtune.process import Watch
from trimtune.records import Budget, DataSpec, Fit, Study, Use
from trimtune.store import Store
from trimtune.study.data import load
from trimtune.study.stored import prepared
from trimtune.tasks import text_classification
from trimtune.tasks._base import base_of
from trimtune.tune import batches, search
from trimtune.tune.fits import Fits

HERE = Path(__file__).resolve().parent
PEER = HERE.parents[1] / "shared" / "reference" / "peer_fit.py"
SST2 = HERE.parents[1] / "shared" / "data" / "sst2"
FLAGS = [("bf16", "eager"), ("bf16", "sdpa"), ("fp32", "eager"), ("fp32", "sdpa")]
WARM, ROWS = 5, 65 * 32
"""steps that are left out of the clock, as the peer does; all rows"""
TRIALS = 6
"""of the head's search"""
TARGETS = {"lora": (2.5, 5.0), "full": (1.5, 0.0), "head": (20.0, 0.0), "lm": (1.5, 0.0), "search": (4.0, 0.0)}
"""times the peer's best, times its defaults; on CPUs without bf16 matrix units"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("works", nargs="*", default=["lora", "full", "head", "lm"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--trials", type=int, default=6, help="of `search`")
    parser.add_argument("--peer", type=Path, default=PEER, help="the peer's script")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "fit.json")
    asked = parser.parse_args()
    if not asked.peer.exists() or not SST2.exists():
        raise SystemExit(f"needed: the peer's script ({asked.peer}, or --peer) and SST-2 as CSV files in {SST2}")
    report = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.exists() else {}
    for work in asked.works:
        line = search_against(asked) if work == "search" else rates_against(work, asked)
        report[work] = {**line, "machine": _machine.describe()}
        print(f"{work:7} {line['times_best']:.2f} × the peer's best"
              + (f", {line['times_defaults']:.2f} × its defaults" if "times_defaults" in line else "")
              + (f", {line['share_of_bound']:.0%} of the bound" if line.get("share_of_bound") else "")
              + (f", {line['memory_ratio']:.2f} × its memory" if "memory_ratio" in line else "")
              + (f", {line['times_steps']:.2f} × its steps alone" if "times_steps" in line else "")
              + f"   (asked: {TARGETS[work][0]:g})", flush=True)
        asked.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def rates_against(work: str, asked: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second (rows for the head) of ours and of the peer, in turns."""
    kind, method = ("lm", "lora") if work == "lm" else ("encoder", work)
    steps, warm = (6, 2) if work == "lm" else (60, WARM)
    tried: list[dict[str, Any]] = []

    def attempt(precision: str, attention: str, compiled: bool = False) -> None:
        tried.append(peer(asked.peer, kind, method, steps=steps // 2, warmup=warm, precision=precision, attention=attention,
                          compile=compiled))
        print(f"  peer {work} {precision} {attention}{' compiled' if compiled else ''}: {tried[-1]['tokens_per_s']} tokens/s",
              flush=True)

    def fastest() -> dict[str, Any]:
        return max(tried, key=lambda line: float(line["tokens_per_s"]))

    for flags_ in FLAGS:
        attempt(*flags_)
    if asked.compile:
        attempt(fastest()["precision"], fastest()["attention"], compiled=True)
    best = fastest()
    flags = {name: best[name] for name in ("precision", "attention", "compile")}
    peers, defaults, ours = [], [], []
    rate = "rows_per_s" if work == "head" else "tokens_per_s"
    for turn in range(asked.rounds):
        ours.append(language_model(steps) if work == "lm" else fit(method))
        peers.append(peer(asked.peer, kind, method, steps=steps, warmup=warm, **flags))
        if work in ("lora", "full"):
            defaults.append(peer(asked.peer, kind, method, steps=steps, warmup=warm, flags="default"))
        print(f"  round {turn + 1}: ours {ours[-1][rate]:.0f}, peer {peers[-1][rate]:.0f}"
              + (f", its defaults {defaults[-1][rate]:.0f}" if defaults else "") + f" {rate.replace('_per_', '/')}", flush=True)
    found: dict[str, Any] = {"ours": ours, "peer_best": peers, "peer_defaults": defaults, "peer_tried": tried,
                             "times_best": ratio(ours, peers, rate)}
    if defaults:
        found["times_defaults"] = ratio(ours, defaults, rate)
    if "bound_tokens_per_s" in ours[0]:
        found["share_of_bound"] = statistics.median(line["tokens_per_s"] / line["bound_tokens_per_s"] for line in ours)
    if work != "head":
        found["memory_ratio"] = statistics.median(
            mine["peak_memory_mb"] / (other["peak_rss_gib"] * 2**30 / 1e6) for mine, other in zip(ours, peers, strict=True))
    return found


def ratio(ours: list[dict[str, Any]], theirs: list[dict[str, Any]], name: str) -> float:
    return statistics.median(mine[name] / other[name] for mine, other in zip(ours, theirs, strict=True))


def peer(script: Path, kind: str, method: str, *, steps: int, warmup: int, flags: str = "best", precision: str = "fp32",
         attention: str = "", compile: bool = False, extra: tuple[str, ...] = ()) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "peer.py"), str(script), kind, "--flags", flags, "--precision", precision,
               "--steps", str(steps), "--warmup", str(warmup), "--max-length", "64", *extra]
    command += ["--method", "lora", "--head"] if method == "head" else ["--method", method]
    command += ["--attention", attention] * bool(attention) + ["--compile"] * compile
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the peer failed: {' '.join(command)}\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def small_study(folder: Path, method: str, watch: Watch | None = None) -> tuple[Study, Store]:
    """SST-2 cut to as many training rows as the peer sees, and few to validate on."""
    for name, source, count in (("train", "train", ROWS), ("validation", "dev", 64), ("test", "test", 64)):
        with (SST2 / f"{source}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))[:count]
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"])
            writer.writeheader()
            writer.writerows(rows)
    use = Use(name=method, config=parts.load("method", method).Config().model_dump())
    paths = {name: str(folder / f"{name}.csv") for name in ("train", "validation", "test")}
    study = Study(name="bench", model="minilm", task="text_classification", data=DataSpec(**paths), tune=(use,), trim=((),),
                  engine=(), fit=Fit(epochs=1, batch_size=32, max_length=64), budget=Budget(trials=1, seeds=1))
    return study, Store(folder / "store", watch)


def fit(method: str) -> dict[str, Any]:
    """One fit of ours (of the head: a search), as a run makes it: through the store, in fresh processes.

    The first steps are left out, as with the peer. A search of the head pays for its features once; loading the model is
    left out, as with the peer's timed steps.
    """
    marks: list[tuple[int, float]] = []

    def watch(event: dict[str, Any]) -> None:
        if event["kind"] == "progress" and event["text"] == "fit":
            marks.append((event["done"], time.perf_counter()))

    with tempfile.TemporaryDirectory() as scratch:
        study, store = small_study(Path(scratch), method, watch)
        rows, facts = prepared(study, store)
        base = base_of(study, facts.labels, store)
        fit_at = Fits(study.tune[0], study, base, rows, store)
        made = [fit_at(1e-3 * (trial + 1), 0) for trial in range(TRIALS if method == "head" else 1)]
        line: dict[str, Any] = {"precision": made[0].facts["precision"],
                                "peak_memory_mb": max(one.peak_memory_mb for one in made)}
        if method == "head":
            features = sum(parent.facts["pass_seconds"] for parent in map(store.seen, made[0].parents)
                           if parent and parent.step == "features")
            seconds = features + sum(one.facts["train_seconds"] for one in made)
            return line | {"rows_per_s": ROWS * study.tune[0].config["passes"] * TRIALS / seconds, "trials": TRIALS}
        tokenizer = text_classification.load_tokenizer(base.folder)
        lengths = [len(ids) for ids in tokenizer(load(rows.folder).train.texts, truncation=True, max_length=64)["input_ids"]]
        left_out = batches.order(lengths, 32, 0, 0)[:WARM]
        (seen, started), (_, ended) = next(mark for mark in marks if mark[0] >= WARM * 32), marks[-1]
        assert seen == sum(map(len, left_out))
        line["tokens_per_s"] = (sum(lengths) - sum(lengths[row] for batch in left_out for row in batch)) / (ended - started)
        line["rows_per_s"] = (len(lengths) - seen) / (ended - started)
        timed = store.step("precision", "gemm", **_gemm())
        flop = (4 if method == "lora" else 6) * (made[0].facts["parameters"] - _embeddings(base.folder))
        return line | {"bound_tokens_per_s": max(timed.facts["gflops"].values()) * 1e9 / flop}


def _gemm() -> dict[str, Any]:
    from trimtune.tune.precision import time_products

    return {"work": time_products, "arguments": {}}


def _embeddings(folder: Path) -> int:
    with (folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    found = 0
    for name, tensor in header.items():
        if "embeddings" in name and len(tensor.get("shape", [])) == 2:
            found += tensor["shape"][0] * tensor["shape"][1]
    return found


def language_model(steps: int) -> dict[str, Any]:
    """LoRA on GPT-2-small's shape, random weights, 8 × 256 tokens: the loop's pieces and the chunked loss."""
    command = [sys.executable, str(HERE / "lm.py"), "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench/lm.py failed:\n{done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def search_against(asked: argparse.Namespace) -> dict[str, Any]:
    """Our search over lora, prefix and prompt on helpdesk, and the peer at the very same learning rates and epochs.

    `times_best` is whole processes against whole processes, as they are waited for; `times_steps` counts of the peer its
    training steps alone, of ours still everything; `times_unpruned` as `times_best`, with each pruned trial of ours paid as
    if it had run to its end.
    """
    import trimtune

    source = Path(trimtune.__file__).parent / "data" / "helpdesk"
    epochs, found = 3, []
    with tempfile.TemporaryDirectory() as scratch:
        for method in ("lora", "prefix", "prompt"):
            use = Use(name=method, config=parts.load("method", method).Config().model_dump())
            study = Study(name="bench", model="minilm", task="text_classification", tune=(use,), trim=((),), engine=(),
                          data=DataSpec(train=str(source / "train.csv"), validation=str(source / "validation.csv"),
                                        test=str(source / "test.csv")),
                          fit=Fit(epochs=epochs, max_length=64), budget=Budget(trials=asked.trials, seeds=1, minutes=600))
            store = Store(Path(scratch) / method)
            rows, facts = prepared(study, store)
            base = base_of(study, facts.labels, store)
            started = time.perf_counter()
            ledger, _ = search.tune(use, study, base, rows, store)
            took = time.perf_counter() - started
            steps = epochs * -(-rows.facts["rows"]["train"] // 32)
            times, in_steps, scores = [], [], []
            for trial in ledger.trials:
                started = time.perf_counter()
                line = peer(asked.peer, "encoder", method, steps=steps - 5, warmup=5, precision="bf16", attention="eager",
                            extra=("--lr", str(trial.learning_rate), "--train", str(source / "train.csv"),
                                   "--validation", str(source / "validation.csv")))
                times.append(time.perf_counter() - started)
                in_steps.append(line["seconds"] * steps / (steps - 5))
                scores.append(line["validation_accuracy"])
            best = max(trial.score or 0 for trial in ledger.trials)
            whole = sum(trial.seconds * (epochs / len(trial.curve) - 1) for trial in ledger.trials if trial.pruned)
            found.append({"method": method, "seconds": took, "peer_seconds": sum(times), "best": best,
                          "unpruned_seconds": took + whole, "peer_step_seconds": sum(in_steps),
                          "peer_best": max(scores), "trials": [trial.model_dump() for trial in ledger.trials],
                          "peer_scores": scores})
            print(f"  {method}: {took:.0f} s, best {best:.4f}; the peer {sum(times):.0f} s, best {max(scores):.4f}",
                  flush=True)
    names = ("seconds", "unpruned_seconds", "peer_seconds", "peer_step_seconds")
    sums = {name: sum(line[name] for line in found) for name in names}
    return {"methods": found, "times_best": sums["peer_seconds"] / sums["seconds"],
            "times_steps": sums["peer_step_seconds"] / sums["seconds"],
            "times_unpruned": sums["peer_seconds"] / sums["unpruned_seconds"]}


if __name__ == "__main__":
    main()
