"""What is measured of a trained SAE. Each measure stands in a file of its own."""

from aligned.evals.recovery import recovery

__all__ = ["recovery"]
