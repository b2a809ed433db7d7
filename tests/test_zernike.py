"""Zernike polynomials: Noll's order, published low orders, orthonormality."""

from __future__ import annotations

import numpy as np
import pytest

from diffphys.optics import zernike
from diffphys.optics.quadrature import gauss_legendre

# Noll 1976, table I: (n, m) of j = 1 ... 15, sines negative
NOLL = [
    (0, 0),
    (1, 1),
    (1, -1),
    (2, 0),
    (2, -2),
    (2, 2),
    (3, -1),
    (3, 1),
    (3, -3),
    (3, 3),
    (4, 0),
    (4, 2),
    (4, -2),
    (4, 4),
    (4, -4),
]
POLYNOMIALS = {  # the same table, written out
    1: lambda r, p: np.ones_like(r * p),
    2: lambda r, p: 2 * r * np.cos(p),
    3: lambda r, p: 2 * r * np.sin(p),
    4: lambda r, p: np.sqrt(3) * (2 * r**2 - 1) * np.ones_like(p),
    5: lambda r, p: np.sqrt(6) * r**2 * np.sin(2 * p),
    6: lambda r, p: np.sqrt(6) * r**2 * np.cos(2 * p),
    7: lambda r, p: np.sqrt(8) * (3 * r**3 - 2 * r) * np.sin(p),
    8: lambda r, p: np.sqrt(8) * (3 * r**3 - 2 * r) * np.cos(p),
    9: lambda r, p: np.sqrt(8) * r**3 * np.sin(3 * p),
    10: lambda r, p: np.sqrt(8) * r**3 * np.cos(3 * p),
    11: lambda r, p: np.sqrt(5) * (6 * r**4 - 6 * r**2 + 1) * np.ones_like(p),
    12: lambda r, p: np.sqrt(10) * (4 * r**4 - 3 * r**2) * np.cos(2 * p),
    13: lambda r, p: np.sqrt(10) * (4 * r**4 - 3 * r**2) * np.sin(2 * p),
    14: lambda r, p: np.sqrt(10) * r**4 * np.cos(4 * p),
    22: lambda r, p: np.sqrt(7) * (20 * r**6 - 30 * r**4 + 12 * r**2 - 1) * np.ones_like(p),
}
RHO, PHI = np.linspace(0, 1, 9)[:, None], np.linspace(0, 2 * np.pi, 13)[None]


def test_nolls_order():
    assert [zernike.noll(j) for j in range(1, 16)] == NOLL
    assert zernike.noll(22) == (6, 0) and zernike.noll(37) == (8, 0)


def test_every_order_has_every_angle_once():
    """Degree n owns n + 1 indices: m = -n, -n + 2, ... n; even indices are cosines."""
    for n in range(9):
        own = [zernike.noll(j) for j in range(n * (n + 1) // 2 + 1, (n + 1) * (n + 2) // 2 + 1)]
        assert {degree for degree, _ in own} == {n}
        assert sorted(m for _, m in own) == list(range(-n, n + 1, 2))


@pytest.mark.parametrize("j", list(POLYNOMIALS))
def test_published_polynomials(j):
    np.testing.assert_allclose(zernike.zernike(j, RHO, PHI), POLYNOMIALS[j](RHO, PHI), atol=1e-13)


def test_orthonormal_on_the_disc():
    """Gauss-Legendre in rho (exact to degree 31), trapezoid in phi (exact to order 31): unit rms, no overlap, to rounding."""
    rho, weight = gauss_legendre(16, 0.0, 1.0)
    phi = 2 * np.pi * np.arange(32) / 32
    area = (weight * 2 * rho)[:, None] / 32 * np.ones_like(phi)
    modes = np.stack([zernike.zernike(j, rho[:, None], phi[None]) for j in range(1, 37)])
    gram = np.einsum("jrp,krp,rp->jk", modes, modes, area)
    np.testing.assert_allclose(gram, np.eye(36), atol=1e-12)


def test_primary_spherical_is_noll_11():
    rho = np.linspace(0, 1.1, 12)  # slightly beyond the rim too
    np.testing.assert_allclose(zernike.primary_spherical(rho), np.sqrt(5) * (6 * rho**4 - 6 * rho**2 + 1), atol=1e-12)


def test_there_is_no_mode_zero():
    with pytest.raises(ValueError, match="1 or more"):
        zernike.noll(0)
