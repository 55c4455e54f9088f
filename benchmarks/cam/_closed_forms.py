"""Means and mean squared errors of the random features of `RandomFeatures`, in closed form.

Throughout s = |x + y|² and K = exp(xᵀy); M is the number of rows of Ω, so that hyperbolic features number 2M.
"""

import numpy as np
from jaxtyping import Float
from scipy.special import hyp1f1

Vector = Float[np.ndarray, " dim"]


def softmax_kernel(x: Vector, y: Vector) -> float:
    """exp(xᵀy)."""
    return float(np.exp(x @ y))


def pairs_within_blocks(rows: int, dim: int) -> int:
    """Ordered pairs of different rows that `orthogonal_gaussian` makes orthogonal to each other."""
    full, rest = divmod(rows, dim)
    return full * dim * (dim - 1) + rest * (rest - 1)


def orthogonal_gain(x: Vector, y: Vector, rows: int) -> float:
    """What orthogonality takes off M · MSE / K², for positive and hyperbolic features alike.

    For orthogonal rows ω_i, ω_j of independent χ_d lengths, ω_i ± ω_j points uniformly and has squared length χ²_{2d},
    so E exp((ω_i + ω_j)ᵀ(x + y)) = ₁F₁(d; d/2; s/2) in place of exp(s). Term by term of the series,
    (d)_k / (2^k (d/2)_k) ≤ 1, the gain is never negative.
    """
    dim, s = x.size, float((x + y) @ (x + y))
    return pairs_within_blocks(rows, dim) / rows * (1 - np.exp(-s) * float(hyp1f1(dim, dim / 2, s / 2)))


def positive_mse(x: Vector, y: Vector, rows: int, orthogonal: bool) -> float:
    """E(φ(x)ᵀφ(y) − K)² of FAVOR+; for independent rows K² (exp(s) − 1) / M (Choromanski et al. 2021)."""
    s = float((x + y) @ (x + y))
    gain = orthogonal_gain(x, y, rows) if orthogonal else 0.0
    return softmax_kernel(x, y) ** 2 / rows * (np.expm1(s) - gain)


def hyperbolic_mse(x: Vector, y: Vector, rows: int, orthogonal: bool) -> float:
    """E(φ(x)ᵀφ(y) − K)² of hyperbolic features; for independent rows ½ (1 − exp(−s)) times that of FAVOR+."""
    s = float((x + y) @ (x + y))
    gain = orthogonal_gain(x, y, rows) if orthogonal else 0.0
    return softmax_kernel(x, y) ** 2 / rows * (np.expm1(s) * -np.expm1(-s) / 2 - gain)


def arc_cosine(x: Vector, y: Vector, order: int) -> float:
    """The arc-cosine kernel of order 1 or 2 (Cho and Saul 2009): 2 E max(ωᵀx, 0)ⁿ max(ωᵀy, 0)ⁿ."""
    length = np.linalg.norm(x) * np.linalg.norm(y)
    cosine = float(np.clip(x @ y / length, -1, 1))
    angle, sine = np.arccos(cosine), (1 - cosine * cosine) ** 0.5
    if order == 1:
        return float(length / np.pi * (sine + (np.pi - angle) * cosine))
    return float(length**2 / np.pi * (3 * sine * cosine + (np.pi - angle) * (1 + 2 * cosine * cosine)))


def relu_kernel(x: Vector, y: Vector, rows: int, offset: float) -> float:
    """The mean of φ(x)ᵀφ(y) for φ(x) = max(Ωx, 0)/√M + ε: half the arc-cosine kernel of order 1, and what ε adds."""
    lengths = float(np.linalg.norm(x) + np.linalg.norm(y))
    return arc_cosine(x, y, 1) / 2 + offset * (rows / (2 * np.pi)) ** 0.5 * lengths + rows * offset**2


def relu_mse(x: Vector, y: Vector, rows: int, offset: float) -> float:
    """The variance of φ(x)ᵀφ(y) for independent rows: Var(ab + c (a + b)) / M, a = max(ωᵀx, 0), c = ε √M.

    E a²b = |x|²|y| (1 + ρ)² / (2 √(2π)) with ρ the cosine, from its derivative in ρ, E 2b [ωᵀx > 0] (Price 1958).
    """
    a, b, c = float(np.linalg.norm(x)), float(np.linalg.norm(y)), offset * rows**0.5
    third = (1 + float(x @ y) / (a * b)) ** 2 / (2 * (2 * np.pi) ** 0.5)
    product = arc_cosine(x, y, 1) / 2
    second_moment = (
        arc_cosine(x, y, 2) / 2 + 2 * c * third * a * b * (a + b) + c * c * ((a * a + b * b) / 2 + 2 * product)
    )
    return (second_moment - (product + c * (a + b) / (2 * np.pi) ** 0.5) ** 2) / rows
