"""The lecture's slides (`make slides`), by Sphinx's reveal.js builder."""

import shutil
from pathlib import Path

from aligned import alignment
from aligned.report import slides

HERE = Path(__file__).parent
slides.draw(HERE)
shutil.copy(alignment.__file__, HERE / "alignment.py")

project = "Aligned Training, replicated"
extensions = ["myst_parser", "sphinx_revealjs", "sphinx-mathjax-offline"]
exclude_patterns = ["conf.py"]
myst_enable_extensions = ["dollarmath", "substitution", "colon_fence"]
myst_substitutions = slides.words()
revealjs_style_theme = "white"
revealjs_static_path = ["static"]
revealjs_css_files = ["slides.css"]
revealjs_script_plugins = [{"name": "RevealNotes", "src": "revealjs/plugin/notes/notes.js"}]
revealjs_script_conf = {
    "slideNumber": "c/t",
    "hash": True,
    "width": 1200,
    "height": 720,
    "margin": 0.03,
    "center": False,
    "controls": False,  # the arrows would lie on the figures
    "transition": "none",
}
