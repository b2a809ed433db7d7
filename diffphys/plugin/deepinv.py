"""The operator as a deepinv `LinearPhysics`: its solvers, priors and trainers run on an instrument of ours.

deepinv's images are (N, C, *axes). Here a specimen is always (N, 1, *specimen); a measurement is (N, 1, z, y, x) for stacks
and (N, frame, y, x) where the modality has frames. The specimen is larger than the recorded field by a margin (see
`diffphys.bind`): `crop` gives its field. Every parameter of the spec is a buffer of its own name, in its own unit, set by
keyword as deepinv's parameters are: `physics(x, z_step=40.0)`; it stays set, one number or one per image.

>>> import deepinv, diffphys, torch
>>> from diffphys.plugin.deepinv import Microscope
>>> physics = Microscope("shg", diffphys.shg.Geometry(shape=(16, 16)), phase_matching_error=0.4)
>>> y = physics(torch.rand(2, 1, *physics.specimen))
>>> step = 1.0 / physics.compute_sqnorm(torch.zeros(1, 1, *physics.specimen), verbose=False)
>>> prior, fidelity = deepinv.optim.prior.TVPrior(n_it_max=20), deepinv.optim.L2()
>>> solver = deepinv.optim.PGD(prior=prior, data_fidelity=fidelity, stepsize=float(step), lambda_reg=1e-3, max_iter=20)
>>> physics.crop(solver(y, physics)).shape
torch.Size([2, 1, 16, 16])
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffphys.operator import Instrument, bind
from diffphys.plugin.torch import adjoint, apply, torch
from diffphys.spec import names
from diffphys.types import Modality, resolve

try:
    from deepinv.physics import LinearPhysics
except ImportError as error:
    raise ImportError("deepinv is not installed: pip install 'diffphys[deepinv]'") from error
except RuntimeError as error:  # a torchvision built for another PyTorch says so only by the operator that it misses
    raise ImportError(
        f"deepinv does not load ({error}); install torch and torchvision of one build (both CPU or both CUDA)"
    ) from error


class _Kept:
    """Holds the instrument in a slot, where deepinv's `clone` does not look: it walks every attribute, and a modality is a
    Python module, from which all of Python can be reached."""

    __slots__ = ("instrument",)

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument


class Microscope(LinearPhysics):
    """An instrument at a spec.

    Args:
        modality: `diffphys.confocal`, `diffphys.shg` or their names.
        geometry: nominal instrument.
        spec: a modality's `Spec`; None: nominal.
        specimen, margin: as in `diffphys.bind`.
        options: single parameters of the spec by name; the rest goes to deepinv's `LinearPhysics` (`noise_model`, `max_iter`,
            `tol`, `device`, ...).

    Attributes:
        specimen: shape of one image, without channel.
        measurement: shape of one measurement, its frames included.
    """

    def __init__(
        self, modality: Modality | str, geometry: Any, *, spec: Any = None, specimen: Sequence[int] | None = None,
        margin: Any = None, **options: Any,
    ) -> None:  # fmt: skip
        modality = resolve(modality)
        known = names(modality.FIELDS)
        given = {name: options.pop(name) for name in known if name in options}
        instrument = bind(modality, geometry, geometry=None, specimen=specimen, margin=margin)
        super().__init__(img_size=(1, *instrument.specimen), **options)
        self._kept, self.names = _Kept(instrument), known
        self.specimen, self.measurement = instrument.specimen, instrument.measurement
        start = modality.nominal(geometry) if spec is None else spec
        for name in known:
            value = torch.tensor(float(getattr(start, name)), device=self._device_holder.device)
            self.register_buffer(name, value)
        self.update_parameters(**given)

    @property
    def instrument(self) -> Instrument:
        """(spec, x) -> expected signal, without deepinv."""
        return self._kept.instrument

    @property
    def framed(self) -> bool:
        """Whether the channels of a measurement are its frames."""
        return len(self.measurement) > len(self.specimen)

    def A(self, x: Any, **parameters: Any) -> Any:
        """Expected signal of (N, 1, *specimen): (N, frame, y, x), or (N, 1, z, y, x); parameters of the spec by name."""
        self.update_parameters(**parameters)
        y = apply(self.instrument, self._spec(), _without_channel(x))
        return y if self.framed else y[:, None]

    def A_adjoint(self, y: Any, **parameters: Any) -> Any:
        """Transpose of `A`."""
        self.update_parameters(**parameters)
        return adjoint(self.instrument, self._spec(), y if self.framed else _without_channel(y))[:, None]

    def crop(self, x: Any) -> Any:
        """The recorded field of (N, 1, *specimen)."""
        field = self.measurement[-len(self.specimen) :]
        starts = [(s - n) // 2 for s, n in zip(self.specimen, field, strict=True)]
        return x[(..., *(slice(a, a + n) for a, n in zip(starts, field, strict=True)))]

    def update_parameters(self, **parameters: Any) -> None:
        """Set parameters of the spec, numbers or tensors of shape () or (N,); names of deepinv's own pass through."""
        for name in set(parameters) & set(self.names):
            if parameters[name] is not None:
                here = getattr(self, name)
                parameters[name] = value = torch.as_tensor(parameters[name]).to(here)
                if value.ndim > 1:
                    raise ValueError(f"{name} has shape {tuple(value.shape)}; expected a number, or one per image (N,)")
        super().update_parameters(**parameters)

    def _spec(self) -> Any:
        """(parameter,), or (N, parameter)."""
        return torch.stack(torch.broadcast_tensors(*(getattr(self, name) for name in self.names)), dim=-1)


def _without_channel(image: Any) -> Any:
    if image.ndim < 2 or image.shape[1] != 1:
        raise ValueError(f"the image has shape {tuple(image.shape)}; expected one channel, (N, 1, ...)")
    return image[:, 0]
