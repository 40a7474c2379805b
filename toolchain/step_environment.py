"""What a step sees of its surroundings: the same in every build, and the same for every caller."""

from __future__ import annotations

import os

from toolchain.bootstrap import ROOT
from toolchain.steps.main import PARENT

# Of the caller's environment: where things are, and how to reach them.
PASSED_ON = (
    "PATH", "HOME", "USER", "TMPDIR", "PYTHONPATH", "SSH_AUTH_SOCK", "SLIPWAY_CACHE",
    "SLIPWAY_TOKEN", "SLIPWAY_LEASE", "XDG_CACHE_HOME", "SOURCE_DATE_EPOCH", "HTTP_PROXY",
    "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip
PASSED_ON_PREFIX = "PIP_"


def of_this_process() -> dict[str, str]:
    """For steps that this process starts: they end with it."""
    passed_on = {
        name: value
        for name, value in os.environ.items()
        if name in PASSED_ON or name.startswith(PASSED_ON_PREFIX)
    }
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return passed_on | {
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",  # data that is drawn from a set comes in the same order
        "OMP_NUM_THREADS": "1",  # more would change the last bits, and fight with -j
        PARENT: str(os.getpid()),
    }
