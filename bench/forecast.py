"""What `plan` forecasts for a fit against what the fit then took: minutes and peak memory, per method.

    python bench/forecast.py                       # helpdesk, 3 epochs, the five default methods and top_k_layers
    python bench/forecast.py --methods lora,full --epochs 2

Prints a table and writes bench/results/forecast.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from trimtune import parts
from trimtune.measure import _machine
from trimtune.records import Budget, DataSpec, Fit, Study, Use
from trimtune.store import Store
from trimtune.study.stored import prepared
from trimtune.tasks._base import base_of
from trimtune.tune import forecast
from trimtune.tune.cost import features_seconds
from trimtune.tune.fits import Fits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="head,full,lora,prefix,prompt,top_k_layers")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--train", default="helpdesk")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "forecast.json")
    asked = parser.parse_args()
    uses = tuple(Use(name=name, config=parts.load("method", name).Config().model_dump()) for name in asked.methods.split(","))
    study = Study(name="forecast", model="minilm", task="text_classification", data=DataSpec(train=asked.train), tune=uses,
                  trim=((),), engine=(), fit=Fit(epochs=asked.epochs, max_length=64, patience=0),
                  budget=Budget(trials=1, seeds=1))
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(scratch))
        rows, facts = prepared(study, store)
        base = base_of(study, facts.labels, store)
        print("method        forecast s  measured s  ratio    forecast MB  measured MB  ratio")
        for use in uses:
            told = forecast.of(use, study, base, rows, store)
            low, high = parts.load("method", use.name).LEARNING_RATES
            made = Fits(use, study, base, rows, store)((low * high) ** 0.5, 0)
            seconds = made.seconds + features_seconds(made, store)
            line = {"method": use.name, "forecast_seconds": 60 * told["fit_minutes"], "seconds": seconds,
                    "forecast_memory_mb": told["memory_mb"], "memory_mb": made.peak_memory_mb}
            lines.append(line)
            print(f"{use.name:12} {line['forecast_seconds']:11.1f} {seconds:11.1f} {line['forecast_seconds'] / seconds:6.2f} "
                  f"{line['forecast_memory_mb']:14.0f} {line['memory_mb']:12.0f} "
                  f"{line['forecast_memory_mb'] / line['memory_mb']:6.2f}", flush=True)
    report = {"train": asked.train, "epochs": asked.epochs, "machine": _machine.describe(), "fits": lines}
    asked.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
