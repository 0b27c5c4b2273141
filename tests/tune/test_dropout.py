import torch

from trimtune.tune import dropout
from trimtune.tune.dropout import factors, pool, quicken


def test_fast_dropout_keeps_the_expectation_and_the_rate():
    torch.manual_seed(0)
    layer = torch.nn.Sequential(torch.nn.Dropout(0.1))
    quicken(layer, seed=0)
    assert type(layer[0]) is not torch.nn.Dropout
    x = torch.ones(400, 500)
    y = layer.train()(x)
    assert abs(float((y == 0).float().mean()) - 26 / 256) < 0.003
    assert abs(float(y.mean()) - 1) < 0.004
    assert torch.equal(layer.eval()(x), x)


def test_each_byte_of_a_draw_decides_alike():
    drawn = pool(64_000, 0.5, torch.float32, 0).view(8000, 8)  # each column is one byte of the 64-bit draws
    assert torch.allclose((drawn > 0).float().mean(0), torch.full((8,), 0.5), atol=0.03)


def test_two_calls_drop_unlike_elements_and_a_seed_repeats_them():
    x = torch.zeros(32, 24, 384)
    torch.manual_seed(3)
    first, second = factors(x, 0.1, 0), factors(x, 0.1, 0)
    both = ((first == 0) & (second == 0)).float().mean()
    assert abs(float(both) - (26 / 256) ** 2) < 0.003  # as rarely together as two independent draws
    torch.manual_seed(3)
    assert torch.equal(factors(x, 0.1, 0), first)
    assert not torch.equal(factors(x, 0.1, 1), first)


def test_a_tensor_larger_than_the_pool_gets_a_larger_one():
    x = torch.zeros(3_000_000)
    assert factors(x, 0.1, 0).shape == x.shape


def test_a_frozen_base_has_no_noise_and_the_methods_own_stays():
    inner = torch.nn.Sequential(torch.nn.Dropout(0.1), torch.nn.Linear(2, 2))
    dropout.silence_frozen(inner)
    model = torch.nn.Sequential(inner, torch.nn.Dropout(0.5))
    dropout.quicken(model, 0)
    model.train()
    x = torch.randn(64, 2)
    assert torch.equal(inner(x), inner(x))
    assert not torch.equal(model(x), model(x))
