"""NF4: two weights to a byte, as the plain rounding says."""

import pytest
import torch

from trimtune.tune import nf4


def rounded_plainly(weight):
    """Every weight by itself: the nearest of the 16 values, times its block's largest."""
    flat, out = weight.flatten().tolist(), []
    for start in range(0, len(flat), 64):
        block = flat[start:start + 64]
        scale = max(abs(value) for value in block)
        out += [scale * min(nf4.VALUES, key=lambda near: abs(near - value / scale)) if scale else 0.0 for value in block]
    return torch.tensor(out).view(weight.shape)


def unpacked(weight, double=False, dtype=torch.float32):
    packed, scales = nf4.quantize(weight, double)
    return nf4.dequantize(packed, scales, weight.numel(), dtype).view(weight.shape)


EDGES = {"random": torch.randn(20, 40, generator=torch.Generator().manual_seed(0)), "zeros": torch.zeros(3, 64),
         "one outlier": torch.tensor([1e-3] * 63 + [-1e4] + [0.0] * 64), "one weight": torch.tensor([[-2.5]]),
         "not a multiple of 64": torch.linspace(-1, 1, 77).view(7, 11), "tiny": torch.full((64,), 1e-38)}


@pytest.mark.parametrize("name", EDGES)
def test_weights_are_rounded_to_the_nearest_value(name):
    torch.testing.assert_close(unpacked(EDGES[name]), rounded_plainly(EDGES[name]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_unpacking_whole_bytes_equals_unpacking_halves(double, dtype, monkeypatch):
    monkeypatch.setattr(nf4, "_BYTES_AT_ONCE", 2048)  # a multiple of a block's bytes: several pieces, the last one short
    weight = torch.randn(77, 131, generator=torch.Generator().manual_seed(1))
    packed, scales = nf4.quantize(weight, double)
    found, wanted = (unpack(packed, scales, weight.numel(), dtype) for unpack in (nf4.dequantize, nf4.dequantize_reference))
    assert found.dtype == dtype
    assert torch.equal(found, wanted)


def test_scales_in_8_bits_cost_hardly_any_accuracy_and_save_their_bytes():
    weight = torch.randn(512, 256, generator=torch.Generator().manual_seed(2))
    errors, sizes = [], []
    for double in (False, True):
        packed, scales = nf4.quantize(weight, double)
        sizes.append((packed.nbytes + sum(part.nbytes for part in scales if part is not None)) / weight.numel())
        errors.append(float((unpacked(weight, double) - weight).norm() / weight.norm()))
    assert sizes == [pytest.approx(0.5625), pytest.approx(0.516, abs=1e-3)]
    assert errors[0] < 0.1
    assert errors[1] == pytest.approx(errors[0], rel=0.01)
    assert torch.equal(unpacked(torch.zeros(130, 64), double=True), torch.zeros(130, 64))


def test_rounding_twice_changes_nothing():
    once = unpacked(torch.randn(64, 64, generator=torch.Generator().manual_seed(3)))
    assert torch.equal(unpacked(once), once)


def test_bitsandbytes_reads_the_same_bytes():
    pytest.importorskip("bitsandbytes")
    weight = torch.randn(30, 100, generator=torch.Generator().manual_seed(4))
    for double in (False, True):
        found = nf4.dequantize_by_bitsandbytes(*nf4.quantize(weight, double), weight.numel(), torch.float32)
        assert torch.equal(found.view(weight.shape), unpacked(weight, double))
