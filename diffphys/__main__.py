"""`python -m diffphys` is the command line."""

import sys

from diffphys.cli import main

sys.exit(main())
