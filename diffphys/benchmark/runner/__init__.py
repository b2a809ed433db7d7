"""Run a stranger's solver beside a hidden truth: one sample per fresh sandbox, its output handled as hostile bytes.

The contract is `solve --input /input/challenge.h5 --output /output/submission.h5`, see `contract.py`. A backend is
bubblewrap or a live docker or podman engine; without one the runner refuses (`E_NO_SANDBOX`) and there is no way round it.
"""

from diffphys.benchmark.runner.contract import Solver as Solver
from diffphys.benchmark.runner.limits import Limits as Limits
from diffphys.benchmark.runner.verdict import Code as Code
from diffphys.benchmark.runner.verdict import Verdict as Verdict
