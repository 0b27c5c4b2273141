import pytest

from trimtune.records import Budget, DataSpec, Fit, Study, Use
from trimtune.store import Store
from trimtune.study.stored import prepared
from trimtune.tasks._base import base_of


def write_csv(path, rows):
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8")


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A study of 96 real rows in 3 intents, its store, base and rows."""
    import csv
    from pathlib import Path

    import trimtune

    folder = tmp_path_factory.mktemp("small")
    source = Path(trimtune.__file__).parent / "data" / "helpdesk"
    names = ("login_problem", "refund_request", "feature_request")
    for split, count in (("train", 32), ("validation", 16), ("test", 16)):
        with (source / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            for name in names:
                mine = [row for row in rows if row["label"] == name][:count]
                writer.writerows([row["text"], row["label"]] for row in mine)
    study = Study(name="small", model="minilm", task="text_classification", trim=((),), engine=(),
                  tune=(Use(name="lora"), Use(name="head")), fit=Fit(epochs=4, max_length=48, precision="fp32"),
                  data=DataSpec(**{split: str(folder / f"{split}.csv") for split in ("train", "validation", "test")}),
                  budget=Budget(trials=3, seeds=2, minutes=5))
    store = Store(folder / "store")
    rows, facts = prepared(study, store)
    return study, store, base_of(study, facts.labels, store), rows
