"""Calibration: the spec of a mismatched instrument from its measurement alone, with honest error bars."""

from diffphys.calibrate.batch import calibrate_batch as calibrate_batch
from diffphys.calibrate.blind import calibrate as calibrate
