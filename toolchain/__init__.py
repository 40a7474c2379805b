"""Slipway: from a PyTorch model to a measured, verified release on the device."""

__version__ = "0.1.0"
