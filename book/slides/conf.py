"""The lecture's slides (`make slides`), by Sphinx's reveal.js builder: figures and findings come from the committed
notebooks and records."""

import shutil
from pathlib import Path

from aligned import alignment
from aligned.report import in_short, rerun, scorecard

HERE = Path(__file__).parent
FIGURES = {
    "bimodality": ["fig-bimodality", "fig-bimodality-real"],
    "geometry": ["fig-geometry"],
    "recovered_ce": ["fig-recovered-ce", "fig-recovered-ce-real"],
    "dead_features": ["fig-dead-features", "fig-dead-features-real"],
    "stability": ["fig-stability"],
    "scr": ["fig-scr"],
    "feature_quality": ["fig-feature-quality"],
    "is_it_the_constraint": ["fig-is-it-the-constraint"],
    "scorecard": ["fig-scorecard-real"],
}
for notebook, names in FIGURES.items():
    for name in names:
        rerun.figure(rerun.NOTEBOOKS / f"{notebook}.ipynb", name, HERE / f"{name}.svg")
shutil.copy(alignment.__file__, HERE / "alignment.py")

project = "Aligned Training, replicated"
extensions = ["myst_parser", "sphinx_revealjs", "sphinx-mathjax-offline"]
exclude_patterns = ["conf.py"]
myst_enable_extensions = ["dollarmath", "substitution", "colon_fence"]
found = {model: scorecard.findings(model) for model in scorecard.models()}
myst_substitutions = {
    # C2 is "embedded: does not hold", a line a model
    **{
        claim: "<br>".join(f"{model}: <b>{of[claim].verdict}</b>" for model, of in found.items())
        for claim in scorecard.CLAIMS
    },
    **{f"says_{claim}": of.statement for claim, of in scorecard.CLAIMS.items()},
    "in_brief": in_short.in_brief(found),
}
revealjs_style_theme = "white"
revealjs_static_path = ["static"]
revealjs_css_files = ["slides.css"]
revealjs_script_conf = {"slideNumber": True, "hash": True, "width": 1200, "height": 720, "transition": "none"}
