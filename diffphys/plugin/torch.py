"""The operator in PyTorch: autograd in the image and in the spec, memory shared through DLPack.

Tensors and arrays are the same memory where the device allows it: on a CPU nothing is copied but non-contiguous tensors. The
backward pass is itself such a function, so gradients of gradients work. float64 runs in JAX's double precision, without
touching its global switch.

>>> import diffphys, torch
>>> from diffphys.plugin.torch import Optics
>>> optics = Optics("shg", diffphys.shg.Geometry(shape=(16, 16)), trainable=["phase_matching_error"])
>>> x = torch.rand(2, *optics.specimen, generator=torch.Generator().manual_seed(0))
>>> y = optics(x, spec=torch.tensor([1.0, 0.0, 0.0]))
>>> optimizer = torch.optim.Adam(optics.parameters(), lr=0.1)
>>> for _ in range(60):
...     optimizer.zero_grad()
...     torch.mean((optics(x) - y) ** 2).backward()
...     moved = optimizer.step()
>>> abs(optics.values["phase_matching_error"] - 1.0) < 0.1
True
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np

from diffphys.operator import Instrument, bind
from diffphys.plugin.physics import Physics, physics_of
from diffphys.plugin.settings import settings_of
from diffphys.spec import from_vector
from diffphys.types import Modality

try:
    import torch
except ImportError as error:
    raise ImportError("PyTorch is not installed: pip install 'diffphys[torch]'") from error

Function = Callable[..., tuple[jax.Array, ...]]


def apply(instrument: Instrument, spec: Any, x: Any) -> Any:
    """Expected signal of a specimen; differentiable in both.

    Args:
        instrument: `diffphys.bind(modality, geometry)`.
        spec: (parameter,) in the order of the modality's FIELDS and in their units, or (batch, parameter).
        x: (*specimen) or (batch, *specimen), float32 or float64; the spec is brought to its dtype and device.

    Returns:
        (*measurement) or (batch, *measurement).

    Raises:
        ValueError: wrong shape or dtype, or a device that JAX does not see.
    """
    return _call(instrument, "apply", spec, x)


def adjoint(instrument: Instrument, spec: Any, y: Any) -> Any:
    """Transpose of `apply` in `x`: (*measurement) or (batch, *measurement) -> (*specimen) or (batch, *specimen)."""
    return _call(instrument, "adjoint", spec, y)


class Optics(torch.nn.Module):
    """An instrument whose spec is a parameter, kept inside its ranges; `adjoint` and `forward` take another one.

    Args:
        modality: `diffphys.confocal`, `diffphys.shg` or their names.
        geometry: nominal instrument.
        spec: start, a modality's `Spec`; None: nominal.
        ranges: name -> (low, high), instead of the modality's own.
        trainable: names that may move; None: all, []: none.
        specimen, margin: as in `diffphys.bind`.

    Attributes:
        theta: parameter (parameter,), the spec's place in its ranges through arctanh.
        specimen: shape of one `x`; the recorded field is its centre.
        measurement: shape of one `y`.
    """

    def __init__(
        self, modality: Modality | str, geometry: Any, *, spec: Any = None, ranges: Mapping[str, Sequence[float]] | None = None,
        trainable: Sequence[str] | None = None, specimen: Sequence[int] | None = None, margin: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.instrument = bind(modality, geometry, geometry=None, specimen=specimen, margin=margin)
        self.settings = settings_of(spec, modality=modality, geometry=geometry, ranges=ranges, trainable=trainable)
        self.theta = torch.nn.Parameter(torch.tensor(self.settings.theta))
        self.specimen, self.measurement = self.instrument.specimen, self.instrument.measurement

    @property
    def spec(self) -> Any:
        """(parameter,), in the parameters' units and in the order of `settings.names`; differentiable."""
        middle, half = (self.theta.new_tensor(v) for v in (self.settings.middle, self.settings.half))
        return middle + half * torch.tanh(self.theta)

    @property
    def values(self) -> dict[str, float]:
        """The spec as plain numbers."""
        return dict(zip(self.settings.names, self.spec.tolist(), strict=True))

    def forward(self, x: Any, spec: Any = None) -> Any:
        """Expected signal; see `apply`."""
        return apply(self.instrument, self.spec if spec is None else spec, x)

    def adjoint(self, y: Any, spec: Any = None) -> Any:
        """Transpose in `x`; see `adjoint`."""
        return adjoint(self.instrument, self.spec if spec is None else spec, y)


class _Call(torch.autograd.Function):
    """A JAX function of arrays with a tuple of results, as an operation of PyTorch."""

    @staticmethod
    def forward(ctx: Any, function: Function, *tensors: Any) -> Any:
        ctx.function = function
        ctx.save_for_backward(*tensors)
        return _run(function, *tensors)

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        tensors, needed = ctx.saved_tensors, ctx.needs_input_grad[1:]
        which = tuple(i for i, wanted in enumerate(needed) if wanted)
        gradients = iter(_Call.apply(_transposed(ctx.function, which, len(tensors)), *tensors, *cotangents))
        return None, *(next(gradients) if wanted else None for wanted in needed)


class _Fixed(torch.autograd.Function):
    """The operator at a spec that needs no gradient: linear in the image, so that nothing but the operator is kept."""

    @staticmethod
    def forward(ctx: Any, physics: Physics, method: str, image: Any) -> Any:
        ctx.physics, ctx.method = physics, method
        return _run(partial(_at, physics, method=method), image)[0]

    @staticmethod
    def backward(ctx: Any, *cotangents: Any) -> Any:
        return None, None, _Fixed.apply(ctx.physics, {"apply": "adjoint", "adjoint": "apply"}[ctx.method], *cotangents)


def _call(instrument: Instrument, method: str, spec: Any, image: Any) -> Any:
    """Checks at the door, then the operation."""
    if not isinstance(image, torch.Tensor) or image.dtype not in (torch.float32, torch.float64):
        what = getattr(image, "dtype", type(image).__name__)
        raise ValueError(f"got an image of {what}; expected a torch tensor of float32 or float64 (call .float())")
    if image.device.type not in _platforms():
        raise ValueError(
            f"the tensor is on {image.device}, where this JAX has no device (it has {sorted(_platforms())}): move it with "
            ".cpu(), or install JAX for that device"
        )
    spec = torch.as_tensor(spec).to(image)
    count = len(instrument.modality.FIELDS)
    if spec.ndim not in (1, 2) or spec.shape[-1] != count:
        raise ValueError(f"spec has shape {tuple(spec.shape)}; expected ({count},) or (batch, {count})")
    if spec.requires_grad and torch.is_grad_enabled():
        return _Call.apply(_function(instrument, method), spec, image)[0]
    values = spec.detach().cpu().numpy()
    physics = _physics_at(instrument, values.tobytes(), values.shape, values.dtype, image.device)
    return _Fixed.apply(physics, method, image)


def _run(function: Function, *tensors: Any) -> tuple[Any, ...]:
    with jax.enable_x64(tensors[0].dtype == torch.float64):
        results = jax.block_until_ready(function(*map(_to_jax, tensors)))  # the caller may overwrite its tensors now
    return tuple(map(torch.from_dlpack, results))


def _to_jax(tensor: Any) -> jax.Array:
    return jax.dlpack.from_dlpack(tensor.detach().contiguous())


@lru_cache(maxsize=1)
def _platforms() -> frozenset[str]:
    """Device kinds of this JAX, as PyTorch names them."""
    found = {"cpu"}
    try:
        jax.devices("cuda")
        found.add("cuda")
    except RuntimeError:  # this JAX was built without, or there is no such device
        pass
    return frozenset(found)


@lru_cache(maxsize=64)
def _function(instrument: Instrument, method: str) -> Function:
    """(spec vector, image) -> (result,), compiled; one per instrument, so that it is compiled once."""

    def function(vector: jax.Array, image: jax.Array) -> tuple[jax.Array, ...]:
        spec = from_vector(instrument.modality.Spec, instrument.modality.FIELDS, vector.T)
        return _at(physics_of(spec, instrument=instrument), image, method=method)

    return jax.jit(function)


@partial(jax.jit, static_argnames="method")
def _at(physics: Physics, image: jax.Array, *, method: str) -> tuple[jax.Array, ...]:
    return (physics.apply(image) if method == "apply" else physics.adjoint(image),)


@lru_cache(maxsize=4)
def _physics_at(instrument: Instrument, raw: bytes, shape: tuple[int, ...], dtype: Any, device: Any) -> Physics:
    """The operator at fixed numbers, kept: the PSF is not computed again for every step of a solver."""
    modality = instrument.modality
    with jax.enable_x64(dtype == np.float64):
        vector = jax.device_put(np.frombuffer(raw, dtype).reshape(shape), jax.devices(device.type)[device.index or 0])
        return physics_of(from_vector(modality.Spec, modality.FIELDS, vector.T), instrument=instrument)


@lru_cache(maxsize=256)
def _transposed(function: Function, which: tuple[int, ...], count: int) -> Function:
    """(*arguments, *cotangents) -> cotangents of the arguments `which`; the others are constants and cost nothing."""

    def back(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        arguments, cotangents = arrays[:count], arrays[count:]

        def of(*chosen: jax.Array) -> tuple[jax.Array, ...]:
            full = dict(enumerate(arguments)) | dict(zip(which, chosen, strict=True))
            return function(*full.values())

        return jax.vjp(of, *(arguments[i] for i in which))[1](cotangents)

    return jax.jit(back)
