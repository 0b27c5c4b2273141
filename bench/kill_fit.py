"""Kill fits with signal 9 at random moments, let them go on from their checkpoints, and compare them with undisturbed ones.

    python bench/kill_fit.py --kills 100

    python bench/kill_fit.py --kills 8 --language folder --pairs pairs.csv     # columns mr and ref, as E2E NLG has them

Three fits of the real model on a few hundred rows of helpdesk: LoRA and full in the number format that is fast here, and
the head on stored features. With --language instead LoRA on that language model and 256 of its pairs, padded and packed.
Each runs as a process of the store, is killed, is asked for again in a new store object, until
it is done; then it begins anew in an empty store, until all kills are spent. Equal must be the sha256 of every file of the
tuned model folder, the validation curve, and every other fact that is no time. Exit status 0 only if all are.

    python bench/kill_fit.py --kills 0 --share-epochs 20

measures what checkpoints cost at their default distance, as a share of the fit's time, in LoRA and full fits so long.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import random
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import trimtune
from trimtune import parts
from trimtune.errors import StepFailed
from trimtune.records import Artifact, DataSpec, Fit, Study, Use
from trimtune.store import Store
from trimtune.study.stored import prepared
from trimtune.tasks._base import base_of
from trimtune.tune.fits import Fits

FITS = {"lora": (3, 0.5), "head": (100, 0.25), "full": (2, 0.25)}
"""method: epochs, share of the kills"""
LANGUAGE_FITS = {"lora": (2, 0.5), "lora packed": (2, 0.5)}
CLOCK = {"train_seconds", "checkpoint_seconds", "seconds_to_99", "rows_per_s", "tokens_per_s"}
BETWEEN_SECONDS = "0.2"


def study(folder: Path, epochs: int, precision: str, language: Path | None = None, packing: Any = "auto") -> Study:
    if language:
        pairs = DataSpec(**{split: str(folder / f"pairs_{split}.csv") for split in ("train", "validation", "test")}, prompt="mr",
                         completion="ref")
        return Study(name="kill", model=str(language), task="causal_lm", data=pairs, tune=(), trim=((),), engine=(),
                     fit=Fit(epochs=epochs, batch_size=8, max_length=200, precision=precision, patience=0, packing=packing))
    data = DataSpec(**{split: str(folder / f"{split}.csv") for split in ("train", "validation", "test")})
    return Study(name="kill", model="minilm", task="text_classification", data=data, tune=(), trim=((),), engine=(),
                 fit=Fit(epochs=epochs, max_length=32, precision=precision, patience=0))


def fit(method: str, asked: Study, store: Store) -> Artifact:
    """The tuned artifact at the middle of the method's range."""
    rows, facts = prepared(asked, store)
    use = Use(name=method, config=parts.load("method", method).Config().model_dump())
    low, high = parts.load("method", method).LEARNING_RATES
    return Fits(use, asked, base_of(asked, facts.labels, store), rows, store)((low * high) ** 0.5, 0)


def killed_fit(method: str, asked: Study, folder: Path, draw: random.Random, kills: int,
               longest: float) -> tuple[Artifact, int, int]:
    """Fit in this store until it is done, with at most `kills` kills on the way.

    Returns the artifact, the kills, and how often it went on in the middle.
    """
    done = resumed = 0

    def watch(event: dict[str, Any]) -> None:
        nonlocal resumed
        resumed += event["kind"] == "resumed"

    while True:
        store, over = Store(folder, watch), threading.Event()
        if done < kills:
            threading.Thread(target=kill_later, args=(draw.uniform(0, longest), over), daemon=True).start()
        try:
            return fit(method, asked, store), done, resumed
        except StepFailed as failure:
            if "signal 9" not in failure.cause:
                raise
            done += 1
        finally:
            over.set()


def kill_later(seconds: float, over: threading.Event) -> None:
    """Kill the process of whatever step is running then."""
    if not over.wait(seconds):
        for process in multiprocessing.active_children():
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--share-epochs", type=int, default=0, help="also time the default checkpoints in fits of so many epochs")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "kill_fit.json")
    parser.add_argument("--language", type=Path, help="a language model's folder")
    parser.add_argument("--pairs", type=Path, help="its rows")
    asked = parser.parse_args()
    if bool(asked.language) != bool(asked.pairs):
        parser.error("--language and --pairs go together")
    found: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    kills = "language_kills" if asked.language else "kills"
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        small_rows(folder)
        if asked.pairs:
            small_pairs(asked.pairs, folder)
        if asked.share_epochs:
            found["checkpoints_at_the_default_distance"] = share(folder, asked.share_epochs)
        if asked.kills:
            found[kills] = kill(folder, asked.kills, random.Random(asked.seed), asked.language)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if asked.kills and not all(line["equal"] for line in found[kills]):
        raise SystemExit(1)


def kill(folder: Path, kills: int, draw: random.Random, language: Path | None = None) -> list[dict[str, Any]]:
    os.environ["TRIMTUNE_CHECKPOINT_SECONDS"] = BETWEEN_SECONDS  # before the fork server starts, which hands it on
    store = Store(folder / "whole")
    wanted_fits = LANGUAGE_FITS if language else FITS
    fits, last = [], list(wanted_fits)[-1]
    left = kills
    print(f"{'fit':11} {'format':6} {'alone':>7} {'kills':>6} {'went on':>8} {'fits':>5} {'files':>6}  equal", flush=True)
    for name, (epochs, part) in wanted_fits.items():
        method, packing = name.split()[0], "on" if name.endswith("packed") else "off"
        whole = fit(method, study(folder, epochs, "auto", language, packing), store)
        # timed once, so that a borderline machine doesn't waver
        wanted = study(folder, epochs, whole.facts["precision"], language, packing)
        mine = left if name == last else round(kills * part)
        left -= mine
        line = {"fit": name, "precision": whole.facts["precision"], "seconds": round(whole.seconds, 1), "kills": 0,
                "went_on": 0, "fits": 0, "files": len(whole.files), "equal": True}
        while line["kills"] < mine:
            home = folder / f"{name.replace(' ', '-')}-{line['fits']}"
            for timed in store.folder.glob("attention-*"):  # as in a run's store: timed once, however busy the machine gets
                shutil.copytree(timed, home / timed.name)
            made, done, resumed = killed_fit(method, wanted, home, draw, mine - line["kills"], 0.7 * whole.seconds)
            line["kills"], line["went_on"], line["fits"] = line["kills"] + done, line["went_on"] + resumed, line["fits"] + 1
            other = [file for file in whole.files if made.files.get(file) != whole.files[file]]
            other += [fact for fact, value in told(whole).items() if told(made)[fact] != value]
            if other:
                line["equal"] = False
                print(f"{name}, fit {line['fits']}: unequal {', '.join(other)}", flush=True)
        print(f"{name:11} {line['precision']:6} {line['seconds']:5} s {line['kills']:6} {line['went_on']:8} {line['fits']:5} "
              f"{line['files']:6}  {'yes' if line['equal'] else 'NO'}", flush=True)
        fits.append(line)
    return fits


def share(folder: Path, epochs: int) -> list[dict[str, Any]]:
    """Fits that nobody kills, with checkpoints as a user gets them."""
    found = []
    for method in ("lora", "full"):
        made = fit(method, study(folder, epochs, "auto"), Store(folder / "share"))
        took = made.facts["checkpoint_seconds"]
        line = {"fit": method, "precision": made.facts["precision"], "seconds": round(made.seconds, 1),
                "checkpoint_seconds": round(took, 2), "share_percent": round(100 * took / made.facts["train_seconds"], 2)}
        print(f"{method}: {took:.2f} s of {made.facts['train_seconds']:.0f} s of fitting ({line['share_percent']}%)", flush=True)
        found.append(line)
    return found


def told(made: Artifact) -> dict[str, Any]:
    return {name: value for name, value in made.facts.items() if name not in CLOCK}


def small_rows(folder: Path) -> None:
    source = Path(trimtune.__file__).parent / "data" / "helpdesk"
    for split, count in (("train", 256), ("validation", 96), ("test", 48)):
        lines = (source / f"{split}.csv").read_text(encoding="utf-8").splitlines()
        (folder / f"{split}.csv").write_text("\n".join(lines[:count + 1]) + "\n", encoding="utf-8")


def small_pairs(source: Path, folder: Path) -> None:
    """Few rows, spread over the whole file."""
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    random.Random(0).shuffle(rows)
    for split, start, count in (("train", 0, 256), ("validation", 256, 32), ("test", 288, 16)):
        with (folder / f"pairs_{split}.csv").open("w", encoding="utf-8", newline="") as out:
            writer = csv.DictWriter(out, ["mr", "ref"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows[start:start + count])


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"{time.perf_counter() - started:.0f} s")
