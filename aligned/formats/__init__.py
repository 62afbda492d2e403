"""SAEs in files: ours are written in SAELens's inference format, and anyone's can be read.

    any_sae.py    `load`: finds out which format a folder or a name is of
    ours.py       what this project writes, and reads without SAELens
    saelens.py, dictionary_learning.py, sparsify.py, gemma_scope.py
                  folders of other programs, a file each
    releases.py   published SAEs by name
    weights.py    from weights to an SAE: what all formats have in common
    folders.py    what a folder holds, checked

Three kinds of file are read: safetensors, arrays of NumPy, and torch files, of which only tensors are loaded
(`weights_only`). A pickle that could run code is never loaded.
"""

from aligned.formats.any_sae import load
from aligned.formats.ours import load_saelens, save_saelens

__all__ = ["load", "load_saelens", "save_saelens"]
