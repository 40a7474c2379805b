"""Child processes that do not outlive us, not even when we are killed with SIGKILL."""

from __future__ import annotations

import os
from collections.abc import Sequence

# The kernel kills the child when its parent dies (the setting outlives `exec`). A parent that died
# before the setting was made sends nothing: hence the look at the parent's id afterwards.
_GUARD = 'test "$PPID" = "$1" || exit 143; shift; exec "$@"'


def tied(argv: Sequence[str]) -> list[str]:
    """`argv` such that it is killed when the thread which starts it ends."""
    return ["setpriv", "--pdeathsig", "KILL", "sh", "-c", _GUARD, "sh", str(os.getpid()), *argv]
