"""What is measured of a trained SAE. Each measure stands in a file of its own."""

from aligned.evals.behaviour import behaviour
from aligned.evals.concepts import concepts
from aligned.evals.pages import pages
from aligned.evals.probing import probing
from aligned.evals.recovery import recovery
from aligned.evals.scores import modes
from aligned.evals.scr import scr
from aligned.evals.stability import stability
from aligned.evals.steering import steering

__all__ = ["behaviour", "concepts", "modes", "pages", "probing", "recovery", "scr", "stability", "steering"]
