"""The same work in plain PyTorch: Richardson-Lucy, and three confocal or wide-field PSF models differentiated by autograd.

    radial           vectorial, excitation and detection, pinhole: diffphys's own algorithm, on its own tables
    pupil            the same physics by FFTs of the pupil, three field components per plane and beam
    scalar           scalar wide-field, one FFT per plane: less physics, what most hand-written code does

Each is a function theta (z-step nm, spherical waves, index) -> PSF (z, y, x), centred on n//2, unit sum. Square planes.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special
import torch

from diffphys.confocal import optics
from diffphys.confocal.spec import REFERENCE_UM, Geometry
from diffphys.optics import zernike
from diffphys.optics.pinhole import airy_radius_um

Tensor = torch.Tensor
Model = Callable[[Tensor], Tensor]
_KEPT: list[Any] = []  # a declaration lives as long as its object


def deepinv() -> Any:
    """deepinv, also beside a torchvision built for another PyTorch: the two operators are declared, nothing here calls them."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        with contextlib.suppress(RuntimeError):  # already there
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _KEPT.append(library)
    import deepinv

    return deepinv


def single(value: Any) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(value, np.float32))


def richardson_lucy(y: Tensor, spectrum: Tensor, iterations: int) -> np.ndarray:
    """Circular Richardson-Lucy from a flat start."""
    x, mirrored = torch.full_like(y, float(y.mean())), spectrum.conj()
    for _ in range(iterations):
        mean = torch.fft.irfftn(torch.fft.rfftn(x) * spectrum, s=y.shape)
        x = x * torch.fft.irfftn(torch.fft.rfftn(y / mean.clamp_(min=1e-6)) * mirrored, s=y.shape).clamp_(min=0)
    return x.numpy()


def joint(model: Model, x: Tensor, y: Tensor, theta: Tensor) -> tuple[Tensor, ...]:
    """|y - h(theta) * x|^2 (circular) and its gradients in x and theta."""
    x, theta = (v.detach().requires_grad_() for v in (x, theta))
    blurred = torch.fft.rfftn(torch.fft.ifftshift(model(theta))) * torch.fft.rfftn(x)
    loss = ((torch.fft.irfftn(blurred, s=x.shape) - y) ** 2).sum()
    return loss.detach(), *torch.autograd.grad(loss, (x, theta))


def weighted(model: Model, target: Tensor, theta: Tensor) -> tuple[Tensor, ...]:
    """sum(target h) and its gradient in theta."""
    theta = theta.detach().requires_grad_()
    value = (target * model(theta)).sum()
    return value.detach(), *torch.autograd.grad(value, (theta,))


def radial(geometry: Geometry) -> Model:
    """diffphys's radial Bessel model with its tables."""
    t = optics.tables(geometry)
    sin, cos = single(np.sin(t.theta)), single(np.cos(t.theta))
    weight, projector = single(t.weight * np.sqrt(np.cos(t.theta)) * np.sin(t.theta)), single(t.projector)
    spherical, pinhole = single(REFERENCE_UM * t.spherical), single(t.pinhole)
    beams = [(single(m), 1e-3 * nm) for m, nm in ((t.excitation, geometry.excitation_nm), (t.emission, geometry.emission_nm))]
    quadrant, multiplicity = torch.from_numpy(t.grid.quadrant.astype(np.int64)), single(t.grid.multiplicity)
    ny, nx = geometry.shape[1:]
    gather = quadrant[abs(torch.arange(ny) - ny // 2)][:, abs(torch.arange(nx) - nx // 2)]

    def spot(bessel: Tensor, parts: tuple[Tensor, ...], phase: Tensor) -> Tensor:
        wave, planes = torch.cat([phase.cos(), phase.sin()], 1), phase.shape[1]
        fields = [matrix @ ((weight * a)[:, None] * wave) for matrix, a in zip(bessel, parts, strict=True)]
        squares = [f[:, :planes] ** 2 + f[:, planes:] ** 2 for f in fields]
        return squares[0] + 2 * squares[1] + squares[2]

    def psf(theta: Tensor) -> Tensor:
        index, parts = stratified(theta[2], geometry, sin, cos)
        path = projector @ index + theta[1] * spherical
        total = path[:, None] + defocus(theta[0], geometry) * (1 - cos)[:, None] * geometry.immersion_index
        excited, emitted = (spot(bessel, parts, 2 * math.pi / um * total) for bessel, um in beams)
        h = (pinhole @ emitted) * excited
        return (h / (multiplicity @ h).sum()).T[:, gather]

    return psf


def stratified(index: Tensor, geometry: Geometry, sin: Tensor, cos: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Path difference (micrometres) and Fresnel amplitudes (A_0, A_1, A_2) of two layers (Torok & Varga 1997)."""
    n = geometry.immersion_index
    inside = torch.sqrt(index**2 - (n * sin) ** 2)
    path = geometry.depth_um * (index**2 - n**2) / (inside + n * cos)
    s, p = 2 * n * cos / (n * cos + inside), 2 * n * cos / (index * cos + n * inside / index)
    return path, (s + p * inside / index, p * n * sin / index, s - p * inside / index)


def defocus(z_step: Tensor, geometry: Geometry) -> Tensor:
    """(planes,) micrometres from focus."""
    planes = torch.arange(geometry.shape[0]) - geometry.shape[0] // 2
    return planes * (geometry.voxel_um[0] + 1e-3 * z_step)


class Pupil:
    """Sampled pupil of one wavelength: rays inside the aperture, and where they lie on the FFT grid."""

    def __init__(self, geometry: Geometry, wavelength_um: float) -> None:
        n, self.geometry, self.wavelength_um = geometry.shape[1], geometry, wavelength_um
        frequency = np.fft.fftfreq(n, geometry.voxel_um[1])
        ky, kx = np.meshgrid(frequency, frequency, indexing="ij")
        limit = geometry.na / wavelength_um
        inside = np.hypot(ky, kx) < limit
        rho, phi = np.hypot(ky, kx)[inside] / limit, np.arctan2(ky, kx)[inside]
        sin = rho * geometry.na / geometry.immersion_index
        cos = np.sqrt(1 - sin**2)
        self.where, self.size = torch.from_numpy(np.flatnonzero(inside)), n
        self.sin, self.cos, self.basis = single(sin), single(cos), np.stack([np.ones_like(cos), cos], 1)
        self.solve = single(np.linalg.solve(self.basis.T @ self.basis, self.basis.T))
        self.columns, self.apodised = single(self.basis), single(cos**-0.5)
        z11 = self.project(single(zernike.primary_spherical(rho)))
        self.spherical = REFERENCE_UM * z11 / z11.square().mean().sqrt()
        self.turns = [single(f) for f in (np.cos(2 * phi), np.sin(2 * phi), np.cos(phi))]

    def project(self, path: Tensor) -> Tensor:
        """Piston and defocus removed."""
        return path - self.columns @ (self.solve @ path)

    def intensity(self, theta: Tensor, *, vectorial: bool) -> Tensor:
        """(z, y, x), origin at index 0; of unpolarised light where vectorial."""
        index, parts = stratified(theta[2], self.geometry, self.sin, self.cos)
        path = self.project(index) + theta[1] * self.spherical
        focus = defocus(theta[0], self.geometry)[:, None] * self.geometry.immersion_index * (1 - self.cos)
        wave = torch.polar(torch.ones(()), 2 * math.pi / self.wavelength_um * (path + focus))
        if not vectorial:
            return self.spot(self.apodised * wave)
        twice, twice_sin, once = self.turns
        weights = (parts[0] - parts[2] * twice, parts[2] * twice_sin, 2 * parts[1] * once)  # E_x, E_y, E_z of light along x
        h = sum(self.spot(self.apodised * w * wave) for w in weights)
        return h + h.transpose(1, 2)

    def spot(self, rays: Tensor) -> Tensor:
        field = torch.zeros(len(rays), self.size**2, dtype=rays.dtype).index_copy(1, self.where, rays)
        field = torch.fft.ifft2(field.view(-1, self.size, self.size))
        return field.real.square() + field.imag.square()


def pupil(geometry: Geometry) -> Model:
    """Vectorial confocal by pupil FFTs; the pinhole by its transform."""
    beams = [Pupil(geometry, 1e-3 * nm) for nm in (geometry.excitation_nm, geometry.emission_nm)]
    frequency = np.fft.fftfreq(geometry.shape[1], geometry.voxel_um[1])
    radius = geometry.pinhole_au * airy_radius_um(1e-3 * geometry.emission_nm, geometry.na)
    argument = 2 * np.pi * radius * np.hypot(frequency[:, None], frequency[: len(frequency) // 2 + 1])
    disc = single(np.where(argument > 0, 2 * scipy.special.j1(argument) / np.where(argument > 0, argument, 1), 1))

    def psf(theta: Tensor) -> Tensor:
        excited, emitted = (beam.intensity(theta, vectorial=True) for beam in beams)
        h = excited * torch.fft.irfft2(torch.fft.rfft2(emitted) * disc, s=emitted.shape[1:])
        return torch.fft.fftshift(h / h.sum(), dim=(1, 2))

    return psf


def scalar(geometry: Geometry) -> Model:
    """Scalar wide-field by one pupil FFT per plane."""
    beam = Pupil(geometry, 1e-3 * geometry.emission_nm)

    def psf(theta: Tensor) -> Tensor:
        h = beam.intensity(theta, vectorial=False)
        return torch.fft.fftshift(h / h.sum(), dim=(1, 2))

    return psf
