"""Language models in int8 and int4 in PyTorch: the kernels compute what the plain products do, and the bytes are really fewer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.engines.conftest import Decoders, Folders
from tests.engines.language_models import BASES, NEW, PROMPTS, alone
from tests.study.faults import fault

from trimtune.engines import _packed_torch, torch_eager
from trimtune.engines._decoding import generate, padded
from trimtune.tasks import causal_lm
from trimtune.trim import _grids

SIZES = {"int8": 0.30, "int4": 0.28}
"""of the float32 file, at most: half of these models is the table of tokens, int8 in both"""
FAR = {"int8": 0.06, "int4": 0.35}
"""mean |Δlogit| in standard deviations of the logits, at most; random weights suffer more than learned ones"""


@pytest.mark.parametrize("shape", [(1, 64), (3, 5, 64)])
@pytest.mark.parametrize("bias", [None, torch.linspace(-1, 1, 48)])
def test_the_int8_kernel_computes_the_plain_product(shape: tuple[int, ...], bias: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    weight, x = torch.randn(48, 64, generator=draw), torch.randn(shape, generator=draw)
    packed = _grids.quantize8(weight)
    found = _packed_torch._int8()(*packed, bias)(x)
    torch.testing.assert_close(found, _packed_torch.linear8_reference(x, *packed, bias), rtol=1e-4, atol=1e-4)
    plain = torch.nn.functional.linear(x, weight, bias)
    assert float((found - plain).norm() / plain.norm()) < 0.02


@pytest.mark.parametrize("shape", [(1, 64), (3, 5, 64)])
def test_the_int4_kernel_computes_the_plain_product(shape: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(0)
    weight, x = torch.randn(48, 64, generator=draw), torch.randn(shape, generator=draw).bfloat16().float()
    packed = _packed_torch.quantize4(weight)
    assert packed[0].nbytes == weight.numel() / 2
    found, wanted = _packed_torch._int4()(*packed, None)(x), _packed_torch.linear4_reference(x, *packed, None)
    assert float((found - wanted).norm() / wanted.norm()) < 0.006, "bf16 rounds the result"
    assert float((found - x @ weight.t()).norm() / wanted.norm()) < 0.12


def test_a_token_in_int8_does_not_see_its_neighbors() -> None:
    layer = _packed_torch._int8()(*_grids.quantize8(torch.randn(16, 32, generator=torch.Generator().manual_seed(0))), None)
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(1)) * torch.tensor([1.0, 1e3, 1e-3, 0.0])[:, None]
    assert torch.equal(layer(x), torch.cat([layer(row[None]) for row in x]))


@pytest.mark.parametrize("numerics", ["int8", "int4"])
@pytest.mark.parametrize("kind", ["full", "lora", "prefix", "prompt"])
@pytest.mark.parametrize("base", BASES)
def test_a_packed_model_answers_near_the_plain_one_in_a_fraction_of_its_bytes(
        base: str, kind: str, numerics: str, folders: Folders, decoders: Decoders, tmp_path: Path) -> None:
    source = folders(base, kind)
    facts = torch_eager.export(tmp_path, source, {}, numerics, [], 32, "causal_lm")
    assert (facts["packed"], facts["precision"], facts["task"]) == ("packed", numerics, "causal_lm")
    assert facts["difference"] > 0
    assert (tmp_path / causal_lm.ADAPTER).is_dir() == (kind in ("prefix", "prompt"))
    whole, less = ((folder / "model.safetensors").stat().st_size for folder in (source, tmp_path))
    assert less < (0.5 if base == "gpt2" else SIZES[numerics]) * whole, "GPT-2's positions stay float32"
    decoder: Any = torch_eager.load(tmp_path, 1)
    assert not [name for name, parameter in decoder._module.named_parameters()
                if parameter.ndim > 1 and parameter.dtype == torch.float32 and parameter.shape[0] > 64], "nothing is unpacked"
    found, wanted = (one.begin(*padded(PROMPTS, left=True)) for one in (decoder, decoders(base, kind)))
    assert np.abs(found - wanted).mean() < FAR[numerics] * wanted.std()
    near = 1e-3 if numerics == "int8" else 0.06 * wanted.std()  # bf16 rounds otherwise in batches of other sizes
    for row, prompt in enumerate(PROMPTS):
        assert np.abs(alone(decoder, prompt)[-1] - found[row]).mean() < near, "neither the cache nor a neighbor changes a row"
    assert all(answer.tokens for answer in generate(decoder, PROMPTS[:1], (), NEW))


def test_a_model_without_plain_layers_is_refused(folders: Folders, tmp_path: Path) -> None:
    model: Any = causal_lm.load_model(folders("gpt2", "full"))
    for layer in [*model.transformer.h.modules()]:
        if type(layer).__name__ == "Conv1D":
            layer.__class__ = type("Own", (type(layer),), {})
    fault(lambda: _packed_torch.write(model, folders("gpt2", "full"), tmp_path, "int8"), "no plain linear layers", "Conv1D")


@pytest.mark.parametrize("group", [64, 128, 256])
def test_int4_in_larger_groups(group: int) -> None:
    draw = torch.Generator().manual_seed(0)
    weight, x = torch.randn(48, 512, generator=draw), torch.randn(5, 512, generator=draw).bfloat16().float()
    packed = _packed_torch.quantize4(weight, group)
    assert packed[1].shape == (48, 512 // group)
    found, wanted = _packed_torch._int4()(*packed, None)(x), _packed_torch.linear4_reference(x, *packed, None)
    assert float((found - wanted).norm() / wanted.norm()) < 0.006, "bf16 rounds the result"
