"""diffphys: differentiable forward models of SHG and confocal microscopes that calibrate themselves from the measurement.

>>> import diffphys
>>> geometry = diffphys.confocal.Geometry(shape=(16, 32, 32))
>>> diffphys.confocal.psf(diffphys.confocal.nominal(), geometry=geometry).shape
(16, 32, 32)
"""

from diffphys import confocal as confocal
from diffphys import shg as shg
from diffphys.calibrate import calibrate as calibrate
from diffphys.calibrate import calibrate_batch as calibrate_batch
from diffphys.calibrate.joint import joint as joint
from diffphys.identify import identify as identify
from diffphys.noise import Detector as Detector
from diffphys.noise import log_likelihood as log_likelihood
from diffphys.operator import bind as bind
from diffphys.reconstruct import reconstruct as reconstruct
from diffphys.reconstruct.registry import register_method as register_method
from diffphys.simulate import simulate as simulate
from diffphys.types import Calibration as Calibration
from diffphys.types import Reconstruction as Reconstruction
from diffphys.types import Status as Status
from diffphys.types import register_modality as register_modality

__version__ = "0.1.0"

register_modality(confocal)
register_modality(shg)
