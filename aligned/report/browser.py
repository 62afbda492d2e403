"""Features to browse: a list that can be sorted, filtered and opened, in one piece of HTML that works from a file.

The list is plain `<details>` elements, so that it can be read without a script and used by keyboard; the script sorts
and filters them.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

from aligned.evals.contexts import Page

SORTS = {"score": "alignment score", "density": "how often it fires", "f1": "F1", "mcs": "cosine with another seed"}


def browser(arms: Mapping[str, list[dict[str, Any]]], name: str = "features") -> str:
    """The features of some SAEs.

    Args:
        arms: by the name of the arm, the rows of the measure `browser`.
        name: of this list among others on the page.

    Returns:
        HTML; a sentence where there is no arm.
    """
    if not arms:
        return (
            "<p>No features of these SAEs are published: <code>use_published = False</code> trains the SAEs here.</p>"
        )
    rows = [(arm, row) for arm, of_arm in arms.items() for row in of_arm]
    shown = "".join(_feature(arm, row) for arm, row in rows)
    arm_choice = "".join(f"<option>{html.escape(arm)}</option>" for arm in arms)
    sort_choice = "".join(f'<option value="{key}">{said}</option>' for key, said in SORTS.items())
    return (
        f'<div class="feature-browser" id="{name}"><style>{_STYLE}</style><p class="controls">'
        f'<label>arm <select data-of="arm"><option value="">all</option>{arm_choice}</select></label> '
        f'<label>sort by <select data-of="sort">{sort_choice}</select></label> '
        '<label>order <select data-of="order"><option value="1">smallest first</option>'
        '<option value="-1">largest first</option></select></label> '
        '<label>F1 of at least <input data-of="f1" type="number" min="0" max="1" step="0.1" value="0"></label> '
        '<label>concept <input data-of="concept" type="search" size="14"></label> '
        f'<span role="status">{len(rows)} features</span></p><div class="list">{shown}</div>'
        f"<script>{_SCRIPT % name}</script></div>"
    )


def _feature(arm: str, row: dict[str, Any]) -> str:
    page = Page.of_record(row["page"])
    f1 = page.f1 or 0.0
    raised = ", ".join(f"<code>{html.escape(repr(token)[1:-1])}</code>" for token in row["raises"])
    facts = (
        f"Its decoder direction raises {raised}. Nearest in the other seed: feature {row['nearest']}, "
        f"with a cosine of {row['mcs']:.2f}."
    )
    return (
        f'<details data-arm="{html.escape(arm)}" data-score="{page.score:.4f}" data-density="{page.density:.3g}" '
        f'data-f1="{f1:.3f}" data-mcs="{row["mcs"]:.3f}" data-concept="{html.escape(page.detects)}">'
        f"<summary><b>{html.escape(arm)} {page.feature}</b> score {page.score:.2f} · fires on {page.density:.2%} · "
        f"{html.escape(page.detects)} (F1 {f1:.2f}) · other seed {row['mcs']:.2f}</summary>"
        f"{page.contexts_html()}<p>{facts}</p></details>"
    )


_STYLE = """
.feature-browser .list {max-height: 36em; overflow-y: auto; border: 1px solid #8886; border-radius: 4px}
.feature-browser details {padding: .2em .6em; border-bottom: 1px solid #8884; margin: 0; box-shadow: none}
.feature-browser summary {cursor: pointer}
.feature-browser pre {font-size: .8em; padding: .3em .5em}
.feature-browser .controls label {display: inline-block; margin-right: .8em}
.feature-browser select, .feature-browser input {font: inherit; max-width: 12em}
"""
_SCRIPT = """
(() => {
  const root = document.getElementById("%s"), list = root.querySelector(".list");
  const all = [...list.children], control = of => root.querySelector(`[data-of=${of}]`);
  const show = () => {
    const key = control("sort").value, sign = Number(control("order").value), wanted = control("concept").value;
    const kept = all.filter(row =>
      (!control("arm").value || row.dataset.arm === control("arm").value) &&
      Number(row.dataset.f1) >= Number(control("f1").value || 0) &&
      row.dataset.concept.toLowerCase().includes(wanted.toLowerCase()));
    kept.sort((a, b) => sign * (Number(a.dataset[key]) - Number(b.dataset[key])));
    list.replaceChildren(...kept);
    root.querySelector("[role=status]").textContent = `${kept.length} features`;
  };
  root.addEventListener("input", show);
  show();
})();
"""
