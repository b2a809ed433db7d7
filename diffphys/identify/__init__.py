"""Identifiability: what a measurement can tell about the instrument at best, and what would have to change."""

from diffphys.identify.core import identify as identify
from diffphys.identify.prior import Prior as Prior
from diffphys.identify.prior import of_specimen as of_specimen
from diffphys.identify.prior import of_stack as of_stack
from diffphys.identify.result import Identification as Identification
from diffphys.identify.suggest import Suggestion as Suggestion
