import random

from hypothesis import given
from hypothesis import strategies as st

from trimtune.tune import batches


@given(st.lists(st.integers(1, 60), min_size=1, max_size=400), st.integers(1, 40), st.integers(0, 5), st.integers(0, 3))
def test_every_row_comes_once_and_the_order_follows_from_seed_and_epoch(lengths, size, seed, epoch):
    order = batches.order(lengths, size, seed, epoch)
    assert sorted(row for batch in order for row in batch) == list(range(len(lengths)))
    assert all(len(batch) <= size for batch in order)
    assert order == batches.order(lengths, size, seed, epoch)


def test_epochs_and_seeds_differ():
    lengths = [random.Random(0).randint(3, 50) for _ in range(500)]
    first = batches.order(lengths, 32, 0, 0)
    assert first != batches.order(lengths, 32, 0, 1)
    assert first != batches.order(lengths, 32, 1, 0)


def test_padding_is_under_five_percent_where_plain_batches_waste_a_third():
    draw = random.Random(1)
    lengths = [min(60, max(3, round(draw.lognormvariate(2.8, 0.5)))) for _ in range(2000)]
    assert batches.padding(lengths, batches.order(lengths, 32, 0, 0)) < 0.05
    assert batches.padding(lengths, batches.plain_order(lengths, 32, 0, 0)) > 0.3


def test_pad_masks_exactly_the_padding():
    found = batches.pad([[5, 6, 7], [8]], [0, 1], pad_id=0)
    assert found["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert found["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
