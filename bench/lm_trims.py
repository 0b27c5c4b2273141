"""What trims cost a language model: perplexity on test rows and bytes of a tuned model, and of what each trim leaves of it.

    python bench/lm_trims.py --model ../shared/data/models/stories260K --data ../shared/data/e2e_nlg --runs /tmp/runs

Some rows of the E2E set (meaning → sentence); the model is tuned once, trimmed, and torch_eager runs what is left. The steps are
those of a study, in its store; times are not measured, so other load does no harm. Prints a line per chain of trims.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from itertools import islice
from pathlib import Path

from trimtune import parts
from trimtune.engines._export import exported
from trimtune.errors import StepFailed
from trimtune.measure import _likelihood, size
from trimtune.process import warm_up
from trimtune.records import Artifact, Candidate
from trimtune.store import Store
from trimtune.study.expand import expand
from trimtune.study.read import read
from trimtune.study.stored import prepared
from trimtune.tasks import causal_lm
from trimtune.tasks._base import base_of
from trimtune.tasks._inputs import reading_in
from trimtune.trim._chain import trimmed
from trimtune.tune import search

FILES = {"train": "trainset.csv", "validation": "devset.csv", "test": "testset_w_refs.csv"}
CHAINS = ["none", "int4", "prune_ffn", "low_rank", "distill", ["prune_ffn", "int4"], "prune_heads", ["distill", "int4"],
          ["prune_weights", "sparse"], "ternary"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the E2E set")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1500, help="of training; a tenth of them each for validation and test")
    parser.add_argument("--epochs", type=int, default=3, help="of tuning; the trims' fits have their own")
    parser.add_argument("--trials", type=int, default=2, help="learning rates that are tried")
    asked = parser.parse_args()
    asked.runs.mkdir(parents=True, exist_ok=True)
    data = {name: _some(asked.data / file, asked.runs / f"{name}.csv", asked.rows if name == "train" else asked.rows // 10)
            for name, file in FILES.items()}
    told = {"name": "lm-trims", "model": str(asked.model.resolve()), "task": "causal-lm", "data": data, "tune": ["full"],
            "trim": CHAINS, "engine": [{"torch_eager": {"precision": "fp32"}}],
            "fit": {"epochs": asked.epochs, "max_length": 256, "batch_size": 16, "precision": "fp32"},
            "budget": {"trials": asked.trials, "seeds": 1}}
    (asked.runs / "study.yaml").write_text(json.dumps(told), encoding="utf-8")
    study, store = read(asked.runs / "study.yaml"), Store(asked.runs / ".store")
    warm_up()
    with store.locked(study.name):
        rows, facts = prepared(study, store)
        _, tuned = search.tune(study.tune[0], study, base_of(study, facts.labels, store), rows, store)
        assert tuned is not None
        for candidate in expand(study):
            try:
                links = trimmed(candidate.trims, tuned, rows, study, store)
                runs = exported(candidate, links[-1], rows, study, store)
                mb = sum(size.shipped(runs.folder).values()) / 1e6
                weights = (runs.folder / "model.safetensors").stat().st_size / 1e6
                seconds = sum(link.seconds for link in links[1:])
                print(f"{candidate.trims_label:24} perplexity {_perplexity(candidate, runs, links[0], rows):7.3f}  "
                      f"folder {mb:.3f} MB, weights {weights:.3f} MB, trims took {seconds:.0f} s", flush=True)
            except StepFailed as failure:
                print(f"{candidate.trims_label:24} {failure.cause}", flush=True)


def _perplexity(candidate: Candidate, runs: Artifact, tuned: Artifact, rows: Artifact) -> float:
    decoder = parts.load("engine", candidate.engine.name).load(runs.folder, 1)
    tokenizer = causal_lm.load_tokenizer(runs.folder)
    inputs = causal_lm.inputs(tokenizer, causal_lm.rows.load(rows.folder).test, 256, **reading_in(tuned.folder))
    return math.exp(sum(_likelihood.of(decoder, inputs.ids, inputs.targets, len(tokenizer), 16, 200.0)) / sum(inputs.counts))


def _some(source: Path, target: Path, count: int) -> str:
    """`count` rows of a CSV file, evenly spread over it: neighbors often have the same prompt."""
    with source.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    with target.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *islice(rows[::max(1, len(rows) // count)], count)])
    return str(target.resolve())


if __name__ == "__main__":
    main()
