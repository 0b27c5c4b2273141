from trimtune.tune import precision


def test_the_chosen_format_is_told_with_what_chose_it(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(precision, "emit", lambda kind, **fields: told.append((kind, fields["text"])))
    monkeypatch.setattr(precision, "measured", lambda: {"fp32": 165.4, "bf16": 1430.2})
    assert precision.time_products(tmp_path)["chosen"] == "bf16"
    assert told == [("note", "fits compute in bf16: matrix products at fp32 165, bf16 1,430 GFLOP/s")]


def test_bf16_must_be_clearly_faster(monkeypatch):
    for bf16, chosen in ((50.0, "fp32"), (200.0, "fp32"), (220.0, "bf16")):
        monkeypatch.setattr(precision, "measured", lambda bf16=bf16: {"fp32": 165.0, "bf16": bf16})
        assert precision.choose("auto") == chosen
        assert precision.choose("fp32") == "fp32"
