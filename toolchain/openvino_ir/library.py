"""OpenVINO's Python package, kept from reporting home."""

from __future__ import annotations

import sys
from typing import Any


def openvino() -> Any:
    """The package `openvino`, imported without `openvino_telemetry`.

    That one would tell OpenVINO's makers of each import and each conversion, unless a file in the
    user's home says no. Where it cannot be imported, OpenVINO has a stub that sends nothing.
    """
    if "openvino" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    return openvino
