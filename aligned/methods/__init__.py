"""Published kinds of SAE, a file each: how codes are chosen, what is added to the loss, what happens after a step.

A file holds one `Method` (`aligned.methods.base`); its docstring is the paper's equation. To add a method, write such
a file here: `RunSpec`, `SAE`, the training step by autograd, SAELens's format and the command line find it by its name.
"""

from importlib import import_module
from pkgutil import iter_modules

from aligned.methods.base import METHODS, Method, method, options

for _file in iter_modules(__path__):
    import_module(f"{__name__}.{_file.name}")

__all__ = ["METHODS", "Method", "method", "options"]
