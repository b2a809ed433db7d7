"""Calibration: the spec of a mismatched instrument from its measurement alone, with honest error bars."""

from diffphys.calibrate.blind import calibrate as calibrate
