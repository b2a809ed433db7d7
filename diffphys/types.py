"""The vocabulary of the package: arrays with their axes, what a modality offers, what calibration and reconstruction return.

Read this file first. Lengths are micrometres; any other unit wears a suffix.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.typing
import numpy as np

from diffphys import installed

Array = jax.Array
ArrayLike = jax.typing.ArrayLike
Image = Annotated[Array, "y x"]
Frames = Annotated[Array, "frame y x"]
Stack = Annotated[Array, "z y x"]


class Status(enum.IntEnum):
    """Outcome of numerical work. `REMEDY` says what to do about each."""

    CONVERGED = 0
    OUT_OF_STEPS = 1
    NONFINITE = 2
    MISFIT = 3
    NOT_IDENTIFIABLE = 4
    AT_BOUND = 5
    INTERRUPTED = 6


REMEDY: Mapping[Status, str] = {
    Status.CONVERGED: "nothing to do",
    Status.OUT_OF_STEPS: "raise the number of iterations",
    Status.NONFINITE: "check the input for extreme values and the ranges for unphysical ones",
    Status.MISFIT: "the model does not explain this data within its noise: check the optics file, the voxel size and "
    "the background, and read the error bars as lower limits",
    Status.NOT_IDENTIFIABLE: "this data does not determine the listed parameters: fix their ranges (optics file, --ranges) or "
    "add frames, depth or photons",
    Status.AT_BOUND: "an estimate ended on the edge of its range: widen the range or check the nominal optics",
    Status.INTERRUPTED: "stopped on request: the result is the best so far",
}


@dataclass(frozen=True)
class Calibration:
    """Estimated spec with its uncertainty; arrays follow the order of `names`.

    Attributes:
        spec: estimate, a modality's `Spec`.
        names: parameter names, in the order of the covariance.
        covariance: (P, P), in the parameters' units, systematic part included.
        ranges: name -> (low, high), the box that was searched.
        derived: name -> (value, 1 sigma), combinations better known than their parts (confocal: `c_tot`).
        status: outcome; its remedy is `REMEDY[status]`.
        undetermined: name -> why this data cannot determine it.
        detector: the detector that was used, estimated numbers filled in.
        warnings: one line each.
        diagnostics: plain numbers for `calibration.json` (likelihood, goodness of fit, spectra, sign margin, ...).
    """

    spec: Any
    names: tuple[str, ...]
    covariance: np.ndarray
    ranges: Mapping[str, tuple[float, float]]
    derived: Mapping[str, tuple[float, float]]
    status: Status
    undetermined: Mapping[str, str]
    detector: Any
    warnings: tuple[str, ...] = ()
    diagnostics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        return {name: float(getattr(self.spec, name)) for name in self.names}

    @property
    def sigma(self) -> dict[str, float]:
        """1 sigma of each parameter, in its unit."""
        return dict(zip(self.names, np.sqrt(np.diag(self.covariance)).tolist(), strict=True))

    @property
    def correlation(self) -> np.ndarray:
        """(P, P) correlation matrix of the estimates; 0 where a sigma is 0."""
        sigma = np.sqrt(np.diag(self.covariance))
        scale = np.where(sigma > 0, sigma, 1.0)
        return self.covariance / np.outer(scale, scale)

    @property
    def remedy(self) -> str:
        return REMEDY[self.status]


@dataclass(frozen=True)
class Reconstruction:
    """Restored image in photons per voxel (or in units of `detector.peak_photons`), axes as the specimen.

    Attributes:
        image: float32, (z, y, x) or (y, x).
        status: outcome; its remedy is `REMEDY[status]`.
        iterations: how many were run.
        curve: per checked iteration, the quantity the stopping rule watches (`curve_name`).
        prediction: the model's expected counts for this image, axes of the measurement.
        warnings: one line each.
        uncertainty: 1 sigma of the image, same unit and axes; None where the method has none.
    """

    image: np.ndarray
    status: Status
    iterations: int
    curve: np.ndarray
    curve_name: str
    prediction: np.ndarray
    warnings: tuple[str, ...] = ()
    uncertainty: np.ndarray | None = None

    @property
    def remedy(self) -> str:
        return REMEDY[self.status]


class Transfer(NamedTuple):
    """What one exposure set does to the specimen, ready to apply.

    Attributes:
        psfs: (frame, anchor, *grid), each centred on index n//2 of its grid.
        weights: (anchor, *axes) multiplies the specimen before anchor's convolution; broadcastable (all ones: no depth
            variation).
        modulation: (frame, *axes) multiplies each frame after the blur; broadcastable.
    """

    psfs: Array
    weights: Array
    modulation: Array


@runtime_checkable
class Modality(Protocol):
    """What `diffphys.confocal` and `diffphys.shg` both offer; the argument `modality` everywhere else.

    `diffphys.modality.FromPsf` supplies all but NAME, FIELDS, Geometry and psf.
    """

    NAME: str
    FIELDS: tuple[Any, ...]
    MODULATION_FIELDS: tuple[str, ...]  # parameters that only modulate the recorded frame, not the blur
    TRADE_OFF: tuple[str, ...]  # parameters of which mainly a combination (see `derived`) is known
    BIASED: Mapping[str, float]  # parameters that the structure of one specimen pulls along, and how far usually
    Spec: Any
    Geometry: Any

    def __hash__(self) -> int: ...
    def nominal(self, geometry: Any = None) -> Any: ...
    def default_ranges(self, geometry: Any) -> dict[str, tuple[float, float]]: ...
    def psf(self, spec: Any, *, geometry: Any) -> Array: ...
    def forward(self, spec: Any, x: Array, *, geometry: Any) -> Array: ...
    def transfer(self, spec: Any, *, geometry: Any) -> Transfer: ...
    def pipeline(self, spec: Any, *, geometry: Any, specimen: Any = ...) -> Any: ...
    def otf_quadrant(self, spec: Any, *, geometry: Any, finer: Any = ...) -> tuple[Array, Array]: ...
    def derived(self, spec: Any, *, geometry: Any) -> dict[str, Array]: ...
    def check_ranges(self, ranges: Any, geometry: Any) -> None: ...
    def sampling_warnings(self, geometry: Any) -> tuple[str, ...]: ...
    def weak(self, geometry: Any) -> dict[str, str]: ...
    def twin(self, spec: Any, *, geometry: Any, ranges: Any) -> Any: ...
    def starts(self, ranges: Any, *, geometry: Any) -> np.ndarray: ...
    def block(self, geometry: Any, shape: tuple[int, ...]) -> Any: ...


MEMBERS = tuple(n for n in {**Modality.__annotations__, **vars(Modality)} if not n.startswith("_"))
_MODALITIES: dict[str, Modality] = {}
_OWN = ("confocal_3d", "shg")


def register_modality(modality: Modality, *, replace: bool = False) -> None:
    """Make a modality known by its NAME.

    Args:
        modality: a module or an object with the members of `Modality`.
        replace: take the place of one registered before under the same NAME (a notebook's cell run again).

    Raises:
        ValueError: in one line, for a class, a missing member, a spec that is not the table's, or a NAME that is taken.
    """
    if isinstance(modality, type):
        raise ValueError(f"modality is the class {modality.__name__}; register an object of it: {modality.__name__}()")
    if missing := [name for name in MEMBERS if not hasattr(modality, name)]:
        raise ValueError(f"modality {modality!r} lacks {missing}; diffphys.modality.FromPsf supplies all but a few")
    name, table = modality.NAME, [field.name for field in modality.FIELDS]
    if table != [field.name for field in fields(modality.Spec)]:
        raise ValueError(f"modality {name!r}: Spec has other fields than the table FIELDS, which names {table}")
    if _MODALITIES.get(name, modality) is not modality and (name in _OWN or not replace):
        how = "it is the package's own" if name in _OWN else "pass replace=True to replace it"
        raise ValueError(f"modality name {name!r} is taken: {how}; or choose another NAME")
    _MODALITIES[name] = modality


def unregister_modality(name: str) -> None:
    """Forget a registered modality; the package's own stay."""
    if name in _OWN:
        raise ValueError(f"modality {name!r} is the package's own and cannot be unregistered")
    _MODALITIES.pop(name, None)


def known(modality: Any) -> bool:
    """Whether this very object is registered under its NAME."""
    return _MODALITIES.get(modality.NAME) is modality


def resolve(modality: Modality | str) -> Modality:
    """The modality itself, from it or from its name (`confocal_3d`, `shg`, one registered or of an installed package)."""
    if not isinstance(modality, str):
        return modality
    if modality not in _MODALITIES:
        if (found := installed.load(installed.MODALITIES, modality)) is None:
            names = sorted({*_MODALITIES, *installed.names(installed.MODALITIES)})
            raise ValueError(f"modality is {modality!r}; expected one of {names}")
        if getattr(found, "NAME", modality) != modality:
            raise ValueError(
                f"the modality that is installed as {modality!r} calls itself {found.NAME!r}; its package must agree"
            )
        register_modality(found)
    return _MODALITIES[modality]


def expect_axes(name: str, value: Any, kind: Any) -> None:
    """Raise unless `value` has the axes that `kind` (Image, Frames, Stack) names."""
    axes = kind.__metadata__[0].split()
    if value.ndim != len(axes):
        raise ValueError(f"{name} has shape {tuple(value.shape)}; expected axes {axes}")
