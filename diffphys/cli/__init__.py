"""Command line: `diffphys reconstruct | calibrate | simulate | optics | distil | demo`."""

from diffphys.cli.app import main as main
