"""Zernike polynomials in Noll's order, unit rms over the unit disc (R. J. Noll, JOSA 66:207, 1976, eq. 1-3).

Z_j = sqrt(n+1) R_n^0, m = 0;   sqrt(2 (n+1)) R_n^m cos(m phi), j even;   sqrt(2 (n+1)) R_n^m sin(m phi), j odd.

phi runs from +x towards +y. Low orders: 1 piston, 2 and 3 tilt (x, y), 4 defocus, 5 and 6 astigmatism (oblique, along the
axes), 7 and 8 coma (y, x), 9 and 10 trefoil, 11 spherical.
"""

from __future__ import annotations

from math import factorial, sqrt

import numpy as np

PISTON_TILT_DEFOCUS = (1, 2, 3, 4)  # move the image or change nothing: no data can show them when the specimen is unknown
NAMES = {
    4: "defocus",
    5: "astigmatism at 45 deg",
    6: "astigmatism along x",
    7: "coma along y",
    8: "coma along x",
    9: "trefoil, y",
    10: "trefoil, x",
    11: "spherical",
    12: "2nd astigmatism along x",
    13: "2nd astigmatism at 45 deg",
    14: "quadrafoil, x",
    15: "quadrafoil, y",
    22: "2nd spherical",
}


def noll(j: int) -> tuple[int, int]:
    """(n, m) of Noll's index j >= 1; m > 0 is a cosine, m < 0 a sine."""
    if j < 1:
        raise ValueError(f"Zernike mode is {j}; expected a Noll index of 1 or more")
    n = 0
    while (n + 1) * (n + 2) // 2 < j:
        n += 1
    rank = j - n * (n + 1) // 2  # 1 .. n + 1 within the radial degree
    m = 2 * (rank // 2) if n % 2 == 0 else 2 * ((rank - 1) // 2) + 1
    return n, (m if j % 2 == 0 else -m)


def radial(n: int, m: int, rho: np.ndarray) -> np.ndarray:
    """R_n^|m|(rho), 1 at rho = 1."""
    m = abs(m)
    value = np.zeros_like(np.asarray(rho, np.float64))
    for k in range((n - m) // 2 + 1):
        value = value + (-1) ** k * factorial(n - k) / (
            factorial(k) * factorial((n + m) // 2 - k) * factorial((n - m) // 2 - k)
        ) * np.asarray(rho, np.float64) ** (n - 2 * k)
    return value


def zernike(j: int, rho: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """Z_j at normalised pupil radius `rho` and angle `phi` (rad), broadcast together; unit rms over the disc."""
    n, m = noll(j)
    turn = np.ones_like(phi) if m == 0 else np.cos(m * phi) if m > 0 else np.sin(-m * phi)
    return sqrt(n + 1 if m == 0 else 2 * (n + 1)) * radial(n, m, rho) * turn


def primary_spherical(rho: np.ndarray) -> np.ndarray:
    """Z11 = sqrt(5) (6 rho^4 - 6 rho^2 + 1) at normalised pupil radius `rho`."""
    return zernike(11, rho, np.zeros_like(rho))
