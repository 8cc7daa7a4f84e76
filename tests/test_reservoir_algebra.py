"""What a Reservoir computes with: sums of products, the ridge's equations, the spectral radius."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg

from fastrnn import _ridge
from fastrnn.reservoir import spectral_radius


def test_moments_with_a_large_mean(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(1000, 3)) + 1e6
    moments = _ridge.Moments(3)
    for part in np.split(rows, [1, 1, 400]):
        moments.add([part[:, :1], part[:, 1:]], None)
    centred = rows - rows.mean(0)
    assert moments.count == 1000
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-15)
    np.testing.assert_allclose(moments.scatter, centred.T @ centred, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("size", [1, 5, 128, 129, 300])
def test_cholesky_in_blocks(size: int, rng: np.random.Generator) -> None:
    a = rng.normal(size=(size, 2 * size))
    a = a @ a.T + np.eye(size)
    right = rng.normal(size=(size, 2))
    found = _ridge._solve_cholesky(np.linalg.cholesky(a), right)
    np.testing.assert_allclose(found, np.linalg.solve(a, right), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("size", [3, 130, 500])
@pytest.mark.parametrize("density", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_spectral_radius(size: int, density: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.normal(size=(size, size)) * (rng.random((size, size)) < density)
    expected = np.abs(np.linalg.eigvals(a)).max()
    assert spectral_radius(a) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert spectral_radius(scipy.sparse.coo_matrix(1e200 * a)) == pytest.approx(
        1e200 * expected, rel=1e-9, abs=1e-12
    )


def test_spectral_radius_of_special_matrices(rng: np.random.Generator) -> None:
    symmetric = rng.normal(size=(300, 300))
    symmetric += symmetric.T
    cases = [
        (np.roll(np.eye(300), 1, 0), 1.0),  # a ring: all equally large
        (np.eye(300, k=1), 0.0),  # a delay line
        (np.eye(300), 1.0),
        (np.diag(np.repeat([1.0, -2.0], 150)), 2.0),
        (np.zeros((300, 300)), 0.0),
        (symmetric, np.abs(np.linalg.eigvalsh(symmetric)).max()),
        (np.ones((300, 300), bool), 300.0),
        (np.triu(np.ones((150, 150))), 1.0),  # one eigenvector only, but small
    ]
    for matrix, expected in cases:
        assert spectral_radius(matrix) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_largest_of_a_close_cluster(rng: np.random.Generator) -> None:
    """ARPACK asked for one eigenvalue of such a matrix may return another."""
    size = 2000
    a = scipy.sparse.random(size, size, 0.01, random_state=1, data_rvs=rng.standard_normal)
    several = scipy.sparse.linalg.eigs(a.tocsr(), k=20, return_eigenvectors=False)
    assert spectral_radius(a) == pytest.approx(np.abs(several).max(), rel=1e-9)
