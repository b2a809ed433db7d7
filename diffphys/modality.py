"""A modality from little: its table of parameters, its geometry and its PSF. Everything else has a default here.

    class FocusBracket(FromPsf):
        NAME, FIELDS, Geometry = "focus_bracket", (...), Geometry

        def psf(self, spec, *, geometry): ...

    diffphys.register_modality(FocusBracket())

The model is y_k = modulation_k (h_k (*) x), one PSF per frame over the whole field. Every default is a plain method: replace
those that the instrument knows better. A modality whose blur varies over the field also replaces `transfer` and `pipeline`.
"""

from __future__ import annotations

import copyreg
from collections.abc import Mapping, Sequence
from dataclasses import make_dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from diffphys.noise import Detector
from diffphys.operator import assemble
from diffphys.primitives.convolve import otf
from diffphys.primitives.graph import Graph, compose, node
from diffphys.spec import Field, names, parse
from diffphys.types import Array, Transfer, known, resolve

STARTS = 15
INSIDE = 0.05  # share of a range that the starts keep off its ends


class FromPsf:
    """Base of a modality: supply NAME, FIELDS, Geometry and `psf`.

    Attributes:
        NAME: by which the modality is known.
        FIELDS: table of its mismatch parameters, `diffphys.spec.Field` each.
        Geometry: frozen, hashable dataclass of the nominal instrument, with `shape` and `voxel_um` (z, y, x) or `pixel_um`
            (y, x).
        MODULATION_FIELDS: parameters that change the rows' gains (`modulation`) and not the blur.
        TRADE_OFF: parameters of which mainly a combination, told by `derived`, is known.
        BIASED: parameters that the structure of one specimen pulls along, and how far usually, in their unit.
    """

    NAME: str
    FIELDS: tuple[Field, ...]
    Geometry: Any
    MODULATION_FIELDS: ClassVar[tuple[str, ...]] = ()
    TRADE_OFF: ClassVar[tuple[str, ...]] = ()
    BIASED: ClassVar[Mapping[str, float]] = {}

    def __reduce__(self) -> Any:
        """To copies and other processes a registered modality goes by its name, so that the copy is the original."""
        if known(self):
            return resolve, (self.NAME,)
        return copyreg.__newobj__, (type(self),), vars(self)  # type: ignore[attr-defined]

    @property
    def Spec(self) -> Any:
        """Type of a spec: one traced leaf per parameter of the table."""
        return _spec_type(self.NAME, self.FIELDS)

    def psf(self, spec: Any, *, geometry: Any) -> Array:
        """Intensity PSF, (*axes) or (frame, *axes): unit sum per frame, centred on index n//2, even in y and in x.

        The shape is the geometry's. One whose mirror images in y and x differ needs an `otf_quadrant` of its own.
        """
        raise NotImplementedError(f"modality {self.NAME!r} has no psf(spec, geometry=...)")

    def modulation(self, spec: Any, *, geometry: Any) -> Array:
        """Gain of the recorded samples, broadcastable to (frame, *axes): efficiencies, lamp power. Here: 1."""
        return jnp.ones((1,) * (1 + len(geometry.shape)), _dtype(spec))

    def nominal(self, geometry: Any = None) -> Any:
        """The spec of a perfect instrument: the table's nominal values."""
        return parse(self.Spec, self.FIELDS, {f.name: f.nominal for f in self.FIELDS})

    def default_ranges(self, geometry: Any = None) -> dict[str, tuple[float, float]]:
        """The box searched unless told otherwise: the table's."""
        return {f.name: (f.low, f.high) for f in self.FIELDS}

    def check_ranges(self, ranges: Mapping[str, tuple[float, float]], geometry: Any) -> None:
        """Raise where a range leaves the table's, beyond which nothing says that the model holds."""
        for f in self.FIELDS:
            low, high = ranges[f.name]
            if low < f.low or high > f.high:
                raise ValueError(f"range of {f.name} is [{low:g}, {high:g}] {f.unit}; expected within [{f.low:g}, {f.high:g}]")

    def transfer(self, spec: Any, *, geometry: Any) -> Transfer:
        """One PSF per frame, no weights, the modulation."""
        psfs = self._frames(self.psf(spec, geometry=geometry), geometry)
        ones = jnp.ones((1,) * psfs.ndim, psfs.dtype)
        gain = self.modulation(spec, geometry=geometry)
        return Transfer(psfs[:, None], ones, jnp.broadcast_to(gain, (len(psfs), *gain.shape[1:])))

    def forward(self, spec: Any, x: Array, *, geometry: Any) -> Array:
        """Noiseless signal of the recorded field.

        Args:
            spec: mismatch parameters.
            x: specimen (*axes), at least the field; light from outside the field enters when it is larger.
            geometry: nominal instrument.

        Returns:
            (*axes), or (frame, *axes) where `psf` has frames; in the units of `x`.
        """
        field = tuple(geometry.shape)
        if x.ndim != len(field):
            raise ValueError(f"x has shape {tuple(x.shape)}; expected axes {['z', 'y', 'x'][-len(field) :]}")
        parts = self.transfer(spec, geometry=geometry)
        return assemble(*parts, field, x.shape, None, self._framed(spec, geometry)).apply(x)

    def pipeline(self, spec: Any, *, geometry: Any, specimen: Sequence[int] | None = None) -> Graph:
        """`forward` as a graph of primitives, C(PSF) -> D; input of `specimen`, or the field."""
        psfs, _, modulation = self.transfer(spec, geometry=geometry)
        if psfs.shape[1] > 1:
            raise ValueError(f"modality {self.NAME!r} has {psfs.shape[1]} anchors; write its pipeline")
        every = slice(None) if self._framed(spec, geometry) else 0
        nodes = {
            "PSF": node("convolve", psf=psfs[every, 0], field=tuple(geometry.shape)),
            "D": node("detect", detector=Detector(peak_photons=modulation[every])),
        }
        return compose("C(PSF) -> D", nodes, like=jax.ShapeDtypeStruct(tuple(specimen or geometry.shape), psfs.dtype))

    def otf_quadrant(self, spec: Any, *, geometry: Any, finer: Sequence[int] | None = None) -> tuple[Array, Array]:
        """Real and imaginary OTF of each frame, (frame, |nu_...|) each; `finer` divides the frequency step of each axis."""
        finer = (1,) * len(geometry.shape) if finer is None else finer
        size = tuple(f * n for f, n in zip(finer, geometry.shape, strict=True))
        h = otf(self._frames(self.psf(spec, geometry=geometry), geometry), size)
        h = h[(slice(None), *(slice(n // 2 + 1) for n in size))]
        return h.real, h.imag

    def derived(self, spec: Any, *, geometry: Any) -> dict[str, Array]:
        """Combinations of parameters that are better known than their parts. Here: none."""
        return {}

    def sampling_warnings(self, geometry: Any) -> tuple[str, ...]:
        """One line per axis that is coarser than Nyquist. Here: nothing is known of the band."""
        return ()

    def weak(self, geometry: Any) -> dict[str, str]:
        """Parameters that this geometry cannot determine whatever the data, with the reason. Here: none."""
        return {}

    def twin(self, spec: Any, *, geometry: Any, ranges: Mapping[str, tuple[float, float]]) -> Any:
        """A second spec with the same |OTF|, between which restorations have to decide. Here: there is none."""
        return None

    def starts(self, ranges: Mapping[str, tuple[float, float]], *, geometry: Any) -> np.ndarray:
        """(15, P) start points that fill the box evenly (Halton's sequence)."""
        from scipy.stats import qmc

        low, high = np.array([ranges[f.name] for f in self.FIELDS], np.float64).T
        share = qmc.Halton(len(low), scramble=False).random(STARTS + 1)[1:]
        return low + (INSIDE + (1 - 2 * INSIDE) * share) * (high - low)

    def block(self, geometry: Any, shape: Sequence[int]) -> Any:
        """The same instrument with a field of `shape`."""
        return replace(geometry, shape=tuple(int(n) for n in shape))

    def _framed(self, spec: Any, geometry: Any) -> bool:
        return jax.eval_shape(lambda s: self.psf(s, geometry=geometry), spec).ndim > len(geometry.shape)

    def _frames(self, psf: Array, geometry: Any) -> Array:
        """(frame, *axes)."""
        return psf if psf.ndim > len(geometry.shape) else psf[None]


@lru_cache(maxsize=64)
def _spec_type(name: str, fields: tuple[Field, ...]) -> Any:
    made = make_dataclass(f"Spec_{name}", [(n, Array) for n in names(fields)], frozen=True)
    return jax.tree_util.register_dataclass(made)


def _dtype(spec: Any) -> Any:
    return jnp.result_type(*jax.tree.leaves(spec))
