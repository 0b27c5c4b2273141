"""E2E NLG (meaning → sentence) in one study: full, LoRA, prefix and prompt tuning of one small language model.

    python bench/e2e.py --shared ../shared --runs /tmp/e2e --json bench/results/e2e.json

stories260K has read children's stories alone, so it is first tuned in full on sentences of the set that no split has.
Prints perplexity and BLEU with intervals, how many answers end by themselves, the learning rates, and some answers to read.
Times are not looked at, so other load does no harm; a second call goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from typing import Any

from trimtune import api
from trimtune.measure import _machine
from trimtune.records import Reading
from trimtune.report import facts
from trimtune.results import Result, Row

METHODS = ("full", "lora", "prefix", "prompt")
SENTENCES = 8400
SHOWN = ("perplexity", "bleu", "ended")
READINGS = (*SHOWN, "forgetting", "size_mb")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="the folder with data/e2e_nlg and data/models")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=2000, help="of the training file")
    parser.add_argument("--prompts", type=int, default=100, choices=range(10, 101), metavar="10-100",
                        help="of the test file, with all their references")
    parser.add_argument("--trials", type=int, default=3, help="learning rates per method")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    asked.runs.mkdir(parents=True, exist_ok=True)
    data = files(asked.shared / "data/e2e_nlg", asked.runs, asked.pairs, asked.prompts)
    base = asked.runs / "base"
    if not base.is_dir():
        api.tune(data["text"], model=str(asked.shared / "data/models/stories260K"), method="full", learning_rate=1e-3, epochs=2,
                 task="causal-lm", out=base)
    del data["text"]
    result = api.run({"name": "e2e", "model": str(base), "task": "causal-lm", "data": data, "tune": list(METHODS),
                      "engine": ["torch_eager"], "fit": {"epochs": asked.epochs, "max_length": 256},
                      "budget": {"trials": asked.trials, "seeds": asked.seeds, "minutes": 600}}, runs=asked.runs)
    found = table(result)
    show(found)
    if asked.json:
        asked.json.write_text(json.dumps({"machine": _machine.describe(), "pairs": asked.pairs, "prompts": asked.prompts,
                                          "trials": asked.trials, "seeds": asked.seeds, "epochs": asked.epochs, **found},
                                         indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def files(source: Path, home: Path, pairs: int, prompts: int) -> dict[str, str]:
    """The splits of the study as files, and `text`: the last sentences of the training file, less those that a split has."""
    train, dev, test = (_read(source / name) for name in ("trainset.csv", "devset.csv", "testset_w_refs.csv"))
    if pairs > len(train) - SENTENCES:
        raise SystemExit(f"--pairs: {pairs} were asked for, at most {len(train) - SENTENCES} are left beside the sentences.")
    known = {ref for _, ref in (*train[:pairs], *dev, *test)}
    of = {"train": train[:pairs], "validation": _of_prompts(dev, prompts // 2), "test": _of_prompts(test, prompts)}
    told = {name: _write(home / f"{name}.csv", ["mr", "ref"], rows) for name, rows in of.items()}
    return {**told, "text": _write(home / "text.csv", ["text"], [[ref] for _, ref in train[-SENTENCES:] if ref not in known])}


def table(result: Result) -> dict[str, Any]:
    """What each method reached, what the rules that need no tuning reached, and the first answers."""
    rates = {search.method.name: {"learning_rate": search.learning_rate, "notes": list(search.notes),
                                  "tried": [[trial.learning_rate, trial.score] for trial in search.trials]}
             for search in result.searches}
    return {"methods": {row.name: _readings(row) | rates.get(row.candidate.method.name, {}) for row in result.rows},
            "baselines": {rule.title: _found(rule.readings)
                          for rule in result.baselines},
            "answers": facts.answers(result)}


def show(found: dict[str, Any]) -> None:
    for name, row in found["methods"].items():
        print(f"{name:24}" + "  ".join(f"{key} {row[key][0]:.2f} ({row[key][1]:.2f} to {row[key][2]:.2f})" for key in SHOWN
                                       if key in row) + f"  lr {row.get('learning_rate')}  {row.get('cause', '')}")
    for name, row in found["baselines"].items():
        print(f"{name:24}" + "  ".join(f"{key} {row[key][0]:.2f}" for key in SHOWN if key in row))
    for prompt, reference, said in found["answers"]:
        print(f"\n{prompt}\n  {'reference':24}{reference}")
        for name, answer, ended in said:
            print(f"  {name:24}{answer}{'' if ended else ' [cut]'}")


def _readings(row: Row) -> dict[str, Any]:
    if row.status != "measured":
        return {"cause": f"{row.status}: {row.cause}"}
    return _found(row.readings)


def _found(readings: dict[str, Reading]) -> dict[str, Any]:
    """Of each reading its value, the ends of its interval, and how many it was taken from."""
    found = ((name, readings.get(name)) for name in READINGS)
    return {name: [reading.value, reading.low, reading.high, reading.n] for name, reading in found if reading}


def _read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def _write(path: Path, head: list[str], rows: list[list[str]]) -> str:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return str(path.resolve())


def _of_prompts(rows: list[list[str]], count: int) -> list[list[str]]:
    """All rows of the first `count` distinct prompts."""
    wanted = list(dict.fromkeys(prompt for prompt, _ in rows))[:count]
    return [row for row in rows if row[0] in wanted]


if __name__ == "__main__":
    main()
