"""A client of its own process, for tests that kill or stop it: one line of JSON for each event.

python -m toolchain.tests.lease_client UNIT DEVICES_FILE TTL
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from toolchain import devices
from toolchain.devices import lease
from toolchain.devices.unix import UnixDevice
from toolchain.errors import InfraError

# It lasts, and a process of its own group and one below it last with it.
PROGRAM = 'echo $$ >"$1"; sleep 300 & sleep 300'


def tell(**event: object) -> None:
    print(json.dumps(event), flush=True)


def attempt(name: str, action: Callable[[], object]) -> None:
    try:
        action()
    except InfraError as error:
        tell(event=name, error=error.message)
    else:
        tell(event=name, error=None)


def work(device: UnixDevice, ttl: float) -> None:
    with lease.hold(device, ttl=ttl) as mine:
        tell(event="held", token=mine.token, work=device.work)
        attempt(
            "run",
            lambda: device.run(
                ["sh", "-c", PROGRAM, "sh", f"{device.work}/../program"], timeout=600
            ),
        )
        attempt("run again", lambda: device.run(["touch", f"{device.work}/../ran"], timeout=60))
        attempt(
            "write",
            lambda: device.ask(
                'touch "$1"', f"{device.work}/../written", doing="writing", fenced=True
            ),
        )


def main() -> None:
    name, file, ttl = sys.argv[1:]
    with devices.connect(devices.resolve(name, Path(file))) as device:
        assert isinstance(device, UnixDevice)
        attempt("hold", lambda: work(device, float(ttl)))


if __name__ == "__main__":
    main()
