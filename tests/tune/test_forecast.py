import pytest

from trimtune.records import Use
from trimtune.store import Store
from trimtune.tune import forecast


def test_a_line_through_timings_has_their_fixed_part():
    line = forecast._line([100, 200, 400], [0.03, 0.04, 0.06])
    assert line(300) == pytest.approx(0.05)


@pytest.mark.parametrize(("sizes", "seconds"), [([9, 9], [0.02, 0.04]), ([10, 20], [0.04, 0.02]), ([10, 20], [0.01, 0.05])])
def test_timings_that_make_no_line_are_taken_in_proportion(sizes, seconds):
    assert forecast._line(sizes, seconds)(50) == pytest.approx(50 * sum(seconds) / sum(sizes))


@pytest.mark.slow
def test_a_forecast_counts_steps_and_what_is_beside_them(small, tmp_path):
    study, _, base, rows = small
    store = Store(tmp_path)
    told = forecast.of(Use(name="lora"), study, base, rows, store)
    probe = next(store.seen(step.key) for step in store.steps if step.step == "forecast")
    assert told["fit_minutes"] > probe.facts["epoch_seconds"] * study.fit.epochs / 60 > 0
    assert probe.facts["beside_seconds"] > 0 and probe.facts["rows_at_once"] == 32
    assert not probe.files  # what it saved to time the saving is gone
    assert told["memory_mb"] > 100
