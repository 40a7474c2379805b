"""Child processes that do not outlive their parent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from toolchain.devices.tied import tied
from toolchain.tests.processes import gone


def test_a_tied_child_dies_with_its_parent():
    code = "import subprocess, sys; from toolchain.devices.tied import tied\n"
    code += "p = subprocess.Popen(tied(['sleep', '60'])); print(p.pid, flush=True); p.wait()"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    with parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        time.sleep(0.2)
        assert Path(f"/proc/{child}/cmdline").read_bytes() == b"sleep\x0060\x00"
        parent.kill()
    gone(child)


def test_a_tied_child_of_a_parent_that_is_already_dead_does_not_start():
    command = tied(["echo", "started"])
    command[command.index(str(os.getpid()))] = "999999999"
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (143, b"")
