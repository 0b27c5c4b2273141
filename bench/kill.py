"""Kill a run with signal 9 at random moments, let it go on, and compare it with a run that nobody disturbed.

    python bench/kill.py --kills 10

Both runs have a store of their own. Equal must be: every quality column of candidates.csv, and the sha256 of every file of
every model folder (the artifacts of `base`, `tune` and `trim`). Exit status 0 only if all are equal.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

QUALITY = ("candidate", "status", "accuracy", "accuracy_low", "accuracy_high", "macro_f1")
STUDY = """\
name: kill
model: minilm
data: {train: %s/train.csv, validation: %s/validation.csv, test: %s/test.csv}
tune: [head, lora]
trim: [none, int8, prune_ffn]
engine: [{torch_eager: {precision: fp32}}]
fit: {epochs: 2, max_length: 32, precision: fp32}
budget: {trials: 2, seeds: 1, minutes: 5}
"""


def command(study: Path, runs: Path) -> list[str]:
    return [sys.executable, "-m", "trimtune", "run", str(study), "--runs", str(runs), "--quiet", "--no-open"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "kill.json")
    asked = parser.parse_args()
    draw = random.Random(asked.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        small_rows(folder)
        study = folder / "study.yaml"
        study.write_text(STUDY % (folder, folder, folder), encoding="utf-8")

        started = time.perf_counter()
        subprocess.run(command(study, folder / "whole"), check=True, stdout=subprocess.DEVNULL)
        whole = time.perf_counter() - started
        print(f"undisturbed: {whole:.0f} s", flush=True)

        # the kills fall evenly over the work: each run gets a random share of what one tenth of the whole takes, and more
        done = 0
        while done < asked.kills:
            process = subprocess.Popen(command(study, folder / "killed"), stdout=subprocess.DEVNULL, start_new_session=True)
            time.sleep(5 + draw.random() * 1.6 * whole / asked.kills)
            if process.poll() is not None:
                print(f"finished before kill {done + 1}", flush=True)
                break
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            done += 1
            print(f"kill {done}: {steps(folder / 'killed')} whole steps, {halves(folder / 'killed')} unfinished", flush=True)
        subprocess.run(command(study, folder / "killed"), check=True, stdout=subprocess.DEVNULL)

        found = {"kills": done, "undisturbed_seconds": round(whole, 1),
                 "quality_equal": quality(folder / "whole") == quality(folder / "killed"),
                 "weights_equal": weights(folder / "whole") == weights(folder / "killed"),
                 "model_folders": len(weights(folder / "whole")), "files": sum(map(len, weights(folder / "whole").values()))}
    print(json.dumps(found))
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if not (found["quality_equal"] and found["weights_equal"] and done == asked.kills):
        raise SystemExit(1)


def small_rows(folder: Path) -> None:
    import trimtune

    source = Path(trimtune.__file__).parent / "data" / "helpdesk"
    for split, count in (("train", 360), ("validation", 120), ("test", 200)):
        lines = (source / f"{split}.csv").read_text(encoding="utf-8").splitlines()
        (folder / f"{split}.csv").write_text("\n".join(lines[:count + 1]) + "\n", encoding="utf-8")


def quality(runs: Path) -> list[list[str]]:
    with (runs / "kill" / "candidates.csv").open(newline="", encoding="utf-8") as file:
        return [[row[column] for column in QUALITY] for row in csv.DictReader(file)]


def weights(runs: Path) -> dict[str, dict[str, str]]:
    found = [json.loads(path.read_text()) for path in (runs / ".store").glob("*/artifact.json")]
    return {artifact["key"]: artifact["files"] for artifact in found if artifact["step"] in ("base", "tune", "trim")}


def steps(runs: Path) -> int:
    return len(list((runs / ".store").glob("*/artifact.json")))


def halves(runs: Path) -> int:
    return len(list((runs / ".store" / "tmp").glob("*")))


if __name__ == "__main__":
    main()
