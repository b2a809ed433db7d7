"""SHG image frames: M -> R -> D with excitation_power_fluctuation, phase_matching_error, collection_na_mismatch."""

from collections.abc import Mapping

from diffphys.shg.aberrated import with_zernike as with_zernike
from diffphys.shg.forward import forward as forward
from diffphys.shg.forward import pipeline as pipeline
from diffphys.shg.forward import transfer as transfer
from diffphys.shg.optics import derived as derived
from diffphys.shg.optics import efficiency as efficiency
from diffphys.shg.optics import otf_quadrant as otf_quadrant
from diffphys.shg.optics import psf as psf
from diffphys.shg.optics import starts as starts
from diffphys.shg.optics import twin as twin
from diffphys.shg.scenes import scene as scene
from diffphys.shg.spec import FIELDS as FIELDS
from diffphys.shg.spec import Geometry as Geometry
from diffphys.shg.spec import Spec as Spec
from diffphys.shg.spec import block as block
from diffphys.shg.spec import check_ranges as check_ranges
from diffphys.shg.spec import default_ranges as default_ranges
from diffphys.shg.spec import nominal as nominal
from diffphys.shg.spec import power_trace as power_trace
from diffphys.shg.spec import reference_trace as reference_trace
from diffphys.shg.spec import sampling_warnings as sampling_warnings
from diffphys.shg.spec import weak as weak

NAME = "shg"
MODULATION_FIELDS: tuple[str, ...] = ("excitation_power_fluctuation",)
TRADE_OFF: tuple[str, ...] = ()
BIASED: Mapping[str, float] = {}
