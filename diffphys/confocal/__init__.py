"""Confocal 3-D stacks: C(PSF_3D) -> D with z_step, spherical_aberr, refractive_index."""

from collections.abc import Mapping

from diffphys.confocal.aberrated import with_zernike as with_zernike
from diffphys.confocal.forward import forward as forward
from diffphys.confocal.forward import pipeline as pipeline
from diffphys.confocal.forward import transfer as transfer
from diffphys.confocal.optics import derived as derived
from diffphys.confocal.optics import otf_quadrant as otf_quadrant
from diffphys.confocal.optics import psf as psf
from diffphys.confocal.optics import starts as starts
from diffphys.confocal.optics import twin as twin
from diffphys.confocal.scenes import scene as scene
from diffphys.confocal.spec import FIELDS as FIELDS
from diffphys.confocal.spec import Geometry as Geometry
from diffphys.confocal.spec import Spec as Spec
from diffphys.confocal.spec import block as block
from diffphys.confocal.spec import check_ranges as check_ranges
from diffphys.confocal.spec import default_ranges as default_ranges
from diffphys.confocal.spec import nominal as nominal
from diffphys.confocal.spec import sampling_warnings as sampling_warnings
from diffphys.confocal.spec import weak as weak

NAME = "confocal_3d"
MODULATION_FIELDS: tuple[str, ...] = ()
TRADE_OFF: tuple[str, ...] = ("spherical_aberr", "refractive_index")
BIASED: Mapping[str, float] = {"z_step": 20.0}  # of 200 nm
