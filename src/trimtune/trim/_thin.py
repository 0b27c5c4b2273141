"""One matrix as the product of two thin ones: the best factors for the inputs it sees, and how thin each layer may become.

    W [N, K] ≈ B A,  A [r, K],  B [N, r];  r (N + K) < N K, or nothing is saved
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

MULTIPLE = 8
"""ranks are multiples of it: kernels like widths that fill their vectors"""


def singular(weight_NK: torch.Tensor, root_KK: torch.Tensor | None = None) -> torch.Tensor:
    """Singular values of W, or of W S: float64 [min(N, K)], descending. The squares left out are the error that a rank costs."""
    import torch

    weight_NK = weight_NK.detach().double()
    found: torch.Tensor = torch.linalg.svdvals(weight_NK if root_KK is None else weight_NK @ root_KK)
    return found


def factors(weight_NK: torch.Tensor, rank: int, root_KK: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """A [r, K] and B [N, r], float32, whose product is as near to W as this rank lets it be.

    Args:
        root_KK: S, lower triangular, with S Sᵀ = E[x xᵀ]: the mean of |W x - B A x|² is then least, where without it
            |W - B A|² is. S = identity gives the same factors as none.
    """
    import torch

    weight_NK = weight_NK.detach().double()
    left, values, right = torch.linalg.svd(weight_NK if root_KK is None else weight_NK @ root_KK, full_matrices=False)
    half_R = values[:rank].sqrt()  # both factors get their share, so that neither holds numbers far larger than the other's
    thin_RK = half_R[:, None] * right[:rank]
    if root_KK is not None:
        thin_RK = torch.linalg.solve_triangular(root_KK, thin_RK, upper=False, left=False)
    return thin_RK.float().contiguous(), (left[:, :rank] * half_R).float().contiguous()


def highest(shape: tuple[int, int]) -> int:
    """The highest rank that saves anything, 0 if none does."""
    rows, columns = shape
    return (rows * columns - 1) // (rows + columns) // MULTIPLE * MULTIPLE


def ranks_by_energy(values: Sequence[torch.Tensor], shapes: Sequence[tuple[int, int]], energy: float) -> list[int | None]:
    """For each layer the lowest rank that keeps this share of its squared singular values; None where it would save nothing."""
    found: list[int | None] = []
    for values_R, shape in zip(values, shapes, strict=True):
        shares_R = values_R.square().cumsum(0) / values_R.square().sum().clamp_min(1e-300)
        rank = -(-(int((shares_R < energy).sum()) + 1) // MULTIPLE) * MULTIPLE
        found.append(rank if rank <= highest(shape) else None)
    return found


def ranks_by_ratio(values: Sequence[torch.Tensor], shapes: Sequence[tuple[int, int]], ratio: float) -> list[int | None]:
    """The ranks that keep most energy of all layers together in this share of their parameters; None leaves a layer whole.

    The energy of a layer is a share of its own squared singular values, so that layers with large outputs don't starve the
    others. Each layer's choices (ranks, or whole) are points (parameters, energy); along the upper hull of these, the steps
    that bring most energy per parameter are taken first.
    """
    steps: list[tuple[float, int, int, int | None]] = []
    ranks: list[int | None] = [min(MULTIPLE, highest(shape)) or None for shape in shapes]
    left = ratio * sum(rows * columns for rows, columns in shapes)
    for layer, (values_R, shape) in enumerate(zip(values, shapes, strict=True)):
        points = _hull(_points(values_R, shape))
        left -= points[0][0]
        for before, after in pairwise(points):
            cost, gain = after[0] - before[0], after[1] - before[1]
            steps.append((-gain / cost, layer, cost, after[2]))
    ended: set[int] = set()
    for _, layer, cost, rank in sorted(steps, key=lambda step: step[:2]):
        if layer in ended or cost > left:
            ended.add(layer)
            continue
        left -= cost
        ranks[layer] = rank
    return ranks


def _points(values_R: torch.Tensor, shape: tuple[int, int]) -> list[tuple[int, float, int | None]]:
    """(parameters, share of energy, rank) of each rank that saves anything, and of the whole layer (rank None)."""
    shares = (values_R.square().cumsum(0) / values_R.square().sum().clamp_min(1e-300)).tolist()
    found: list[tuple[int, float, int | None]] = [(rank * sum(shape), shares[rank - 1], rank)
                                                  for rank in range(MULTIPLE, highest(shape) + 1, MULTIPLE)]
    return [*found, (shape[0] * shape[1], 1.0, None)]


def _hull(points: Sequence[tuple[int, float, int | None]]) -> list[tuple[int, float, int | None]]:
    """The points of the upper concave hull, from the first to the last; parameters ascend."""
    found: list[tuple[int, float, int | None]] = []
    for point in points:
        while len(found) > 1 and _slope(found[-2], point) >= _slope(found[-2], found[-1]):
            found.pop()
        found.append(point)
    return found


def _slope(one: tuple[int, float, int | None], other: tuple[int, float, int | None]) -> float:
    return (other[1] - one[1]) / (other[0] - one[0])
