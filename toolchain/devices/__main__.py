"""Devices at the command line: what there is, who works there, what runs there.

python -m toolchain.devices list
python -m toolchain.devices doctor devices=lab.toml
"""

from __future__ import annotations

import sys

from toolchain import errors
from toolchain.devices.commands import main

if __name__ == "__main__":
    with errors.shown():
        try:
            sys.exit(main(sys.argv[1:]))
        except OSError as error:  # a full disk, a folder that is not writable
            raise errors.InfraError(f"this machine says: {error}") from error
        except KeyboardInterrupt:
            sys.exit(130)
