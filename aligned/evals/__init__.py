"""What is measured of a trained SAE. Each measure stands in a file of its own."""

from aligned.evals.activity import behaviour
from aligned.evals.contexts import pages
from aligned.evals.cross_entropy import recovery
from aligned.evals.matching import stability
from aligned.evals.meaning import concepts
from aligned.evals.pushes import steering
from aligned.evals.scores import modes
from aligned.evals.sparse_probes import probing
from aligned.evals.spurious import scr

__all__ = ["behaviour", "concepts", "modes", "pages", "probing", "recovery", "scr", "stability", "steering"]
