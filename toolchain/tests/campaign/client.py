"""A client that may be killed: `python -m toolchain.tests.campaign.client DESCRIPTION`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from toolchain import errors, schema
from toolchain.tests.campaign.acts import Product, push

if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    unit = schema.Device.model_validate_json(json.dumps(asked["unit"]))
    print("ready", flush=True)
    with errors.shown():
        push(unit, Product(Path(asked["bundle"]), Path(asked["runtime"])))
