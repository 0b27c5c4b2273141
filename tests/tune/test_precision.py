from trimtune.tune import precision


def test_the_chosen_format_is_told_with_what_chose_it(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(precision, "emit", lambda kind, **fields: told.append((kind, fields["text"])))
    monkeypatch.setattr(precision, "measured", lambda: {"fp32": 165.4, "bf16": 1430.2})
    assert precision.time_products(tmp_path)["chosen"] == "bf16"
    assert told == [("note", "fits compute in bf16: matrix products at fp32 165, bf16 1,430 GFLOP/s")]
