"""The spectral radius of large sparse matrices, by Arnoldi's method with thick restarts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ._arrays import Array, as_array, describe

# Up to so many rows all eigenvalues cost less than the iteration.
_SMALL = 256
# The Krylov space, and how much of it a restart keeps: large, because the eigenvalues of a random
# matrix lie close together at the rim of their disc.
_SPACE, _KEPT = 80, 32
_RESTARTS = 40
# Residual over modulus. The eigenvalues of random matrices are some hundred times less certain.
_TOLERANCE = 1e-10


def spectral_radius(matrix: Any) -> float:
    """The largest modulus of the eigenvalues of a real square matrix.

    Only products of the matrix with vectors are computed, some hundred of them, and of its nonzero
    elements if these are few; all eigenvalues, in O(N^3), of a small matrix or if the products do
    not settle, as where all eigenvalues are equally large (a ring, a delay line). For random
    matrices the relative error is below 1e-9. For those with hardly any eigenvectors (nilpotent
    ones, triangles) no method of this kind is exact: the result may be too large.

    Args:
        matrix: [N, N] of real numbers; or one of SciPy's sparse ones.

    Raises:
        TypeError, ValueError: if it is not a square matrix of finite real numbers.

    Source: Arnoldi (1951); Stewart (2001), "A Krylov-Schur algorithm for large eigenproblems".

    Example:
        >>> spectral_radius([[0.0, 2.0], [-2.0, 0.0]])
        2.0
    """
    if hasattr(matrix, "tocoo"):
        matrix = matrix.toarray()
    array = as_array("matrix", matrix)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or not array.size:
        raise ValueError(f"matrix: expected a square one [N, N], got shape {array.shape}")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"matrix: expected real numbers, got {describe(array)}")
    array = array.astype(np.float64)
    if not np.isfinite(array).all():
        raise ValueError("matrix: expected finite numbers")
    scale = np.abs(array).max()
    if scale == 0:
        return 0.0
    array /= scale  # or squares might overflow
    found = None if len(array) <= _SMALL else _krylov(_product(array), len(array))
    if found is None:
        found = np.abs(np.linalg.eigvals(array)).max()
    return float(found * scale)


def _product(array: Array) -> Callable[[Array], Array]:
    """v -> array v."""
    rows, columns = np.nonzero(array)
    if 4 * len(rows) > array.size:
        return array.__matmul__
    values = array[rows, columns]
    filled, starts = np.unique(rows, return_index=True)

    def product(v: Array) -> Array:
        result = np.zeros(len(v))
        result[filled] = np.add.reduceat(values * v[columns], starts)
        return result

    return product


def _krylov(product: Callable[[Array], Array], size: int) -> float | None:
    """The largest modulus; None if it has not settled.

    The basis V and the small matrix S hold A V[:m] = V[:m] S + V[m] b^T. A restart keeps an
    invariant subspace of S, that of its largest eigenvalues.
    """
    rng = np.random.default_rng(0)
    basis = np.empty((_SPACE + 1, size))
    small = np.zeros((_SPACE, _SPACE))
    basis[0] = rng.standard_normal(size)
    basis[0] /= np.linalg.norm(basis[0])
    kept = 0
    for _ in range(_RESTARTS):
        for k in range(kept, _SPACE):
            w = product(basis[k])
            length = np.linalg.norm(w)
            w, small[: k + 1, k] = _orthogonal(w, basis[: k + 1])
            beta = float(np.linalg.norm(w))
            if beta <= 1e-13 * length or length == 0:
                # The space is invariant: go on in any direction outside.
                w, _ = _orthogonal(rng.standard_normal(size), basis[: k + 1])
                basis[k + 1], beta = w / np.linalg.norm(w), 0.0
            else:
                basis[k + 1] = w / beta
            if k + 1 < _SPACE:
                small[k + 1, k] = beta
        values, vectors = np.linalg.eig(small)
        order = np.argsort(-np.abs(values), kind="stable")
        first = order[0]
        if beta * abs(vectors[-1, first]) <= _TOLERANCE * abs(values[first]):
            return float(abs(values[first]))
        chosen = _largest(values, vectors, order)
        kept = chosen.shape[1]
        basis[:kept], basis[kept] = chosen.T @ basis[:_SPACE], basis[_SPACE]
        core, last = chosen.T @ small @ chosen, beta * chosen[-1]
        small[:] = 0
        small[:kept, :kept], small[kept, :kept] = core, last
    return None


def _largest(values: Array, vectors: Array, order: Array) -> Array:
    """An orthonormal basis [m, about _KEPT] of what the eigenvectors of the largest values span; of
    a complex pair both directions."""
    columns: list[Array] = []
    for i in order:
        if len(columns) >= _KEPT:
            break
        if values[i].imag >= 0:
            columns.append(vectors[:, i].real)
        if values[i].imag > 0:
            columns.append(vectors[:, i].imag)
    return np.linalg.qr(np.stack(columns, 1))[0]


def _orthogonal(w: Array, basis: Array) -> tuple[Array, Array]:
    """What of w is orthogonal to the rows of a basis, and its coordinates in them. Gram-Schmidt,
    twice, which is enough."""
    first = basis @ w
    w = w - first @ basis
    second = basis @ w
    return w - second @ basis, first + second
