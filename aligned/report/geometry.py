"""The constraint for one feature, in the plane: a picture that a slider moves (arXiv 2605.18629, Figure 1).

`live` returns HTML that needs nothing beside itself. The picture is drawn here, with the encoders of
`aligned.alignment`; the script in it (`SCRIPT`) draws the same picture for other directions of v. Without the script
the picture stands still. Directions are in degrees, lengths in those of d, whose length is 1.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from aligned.alignment import CONSTRAINTS, Constraint, dot
from aligned.report.plots import COLOURS

Point = tuple[float, float]
Encoders = dict[Constraint, Float[Tensor, "1 2"] | None]
Scene = dict[str, dict[str, str]]  # of each part of the picture, the attributes that depend on v; "text" is its text

ARROWS: tuple[Constraint, ...] = ("projected", "rescaled")
SHOWN: tuple[Constraint, ...] = (*ARROWS, "tied")  # tied is a point, the tip of d
RIGHT_ANGLE = 1e-9  # the largest |cosine| of v and d that counts as a right angle; rounding leaves 6e-17
EDGE = 230  # from the middle of the picture to its edge, in the units of the SVG


def vector(degrees: float, length: float = 1.0) -> Float[Tensor, "1 2"]:
    """The vector of this direction and length, in float64.

    Raises:
        ValueError: the direction is not finite, or the length is not finite and above 0.
    """
    if not math.isfinite(degrees):
        raise ValueError(f"the direction of a vector is {degrees}; give a finite number of degrees, such as 80")
    if not (math.isfinite(length) and length > 0):
        raise ValueError(f"the length of a vector is {length}; give a finite number above 0, such as 0.8")
    angle = math.radians(degrees)
    return length * torch.tensor([[math.cos(angle), math.sin(angle)]], dtype=torch.float64)


def encoders(v: Float[Tensor, "1 2"], d: Float[Tensor, "1 2"]) -> Encoders:
    """The encoders that `SHOWN` makes of v and d. `rescaled` is None where v is at a right angle to d: it divides by
    <v, d>, which is 0 there."""
    right_angle = abs(dot(v, d).item()) <= RIGHT_ANGLE * v.norm().item() * d.norm().item()
    return {name: None if name == "rescaled" and right_angle else CONSTRAINTS[name](v, d) for name in SHOWN}


def scene(angle_d: float, angle_v: float, length_v: float) -> Scene:
    """What moves with v: two arrows of encoders, that of v, the way from v to `projected`, their names, the words."""
    d, v = vector(angle_d), vector(angle_v, length_v)
    found = encoders(v, d)
    scale = _scale(length_v)
    free, (dx, dy) = _point(v), _point(d)
    ends = {name: _point(e) for name, e in found.items() if e is not None}
    parts = _arrow("v", free, scale)
    for name in ARROWS:
        parts |= _arrow(name, ends.get(name), scale, free)
    parts["way"] = _line(free, ends["projected"], scale)
    parts["v-name"] = _place(free[0] * scale - 15 * free[1] / length_v, free[1] * scale + 15 * free[0] / length_v)
    places = {name: (ends[name][0] * scale + 12 * dx, ends[name][1] * scale + 12 * dy) for name in ends}
    away = 1 if dy >= 0 else -1
    if "rescaled" in places:  # the name that stands further from the middle keeps a line's height from the other
        higher = away * (places["rescaled"][1] - places["projected"][1])
        near, far = ARROWS if higher > -0.01 else ARROWS[::-1]  # equal: up to rounding
        if abs(higher) < 20:
            places[far] = (places[far][0], places[near][1] + 20 * away)
    for name in ARROWS:
        parts[f"{name}-name"] = _place(*places.get(name, (9999, 0)))
    parts["v-words"] = {"text": f"v points to {angle_v % 360:.4g}°"}
    for name in SHOWN:
        e = found[name]
        if e is None:
            said = "v is at a right angle to d, and this encoder is infinitely long"
        else:
            beyond = ", beyond the edge of the picture" if e.abs().max().item() * scale > EDGE else ""
            said = f"⟨e, d⟩ = {dot(e, d).item():.3f}, |e| = {e.norm().item():.2f}{beyond}"
        parts[f"{name}-words"] = {"text": f"{name}: {said}"}
    return parts


def live(angle_d: float = 25.0, angle_v: float = 80.0, length_v: float = 0.8) -> str:
    """The picture, a slider, the values in words and the script, as HTML. A page may hold several.

    Args:
        angle_d: direction of the decoder row d, in degrees; its length is 1.
        angle_v: direction of the free vector v at first, in degrees.
        length_v: length of v, above 0.

    Raises:
        ValueError: see `vector`.
    """
    moving = scene(angle_d, angle_v, length_v)
    scale = _scale(length_v)
    x, y = _point(vector(angle_d))
    foot = (x * scale, y * scale)
    outside, inside = ("start", "end") if x >= 0 else ("end", "start")
    still = {
        "plane": _line((x + 20 * y, y - 20 * x), (x - 20 * y, y + 20 * x), scale),
        "plane-name": _place(foot[0] + 0.62 * EDGE * y - 10 * x, foot[1] - 0.62 * EDGE * x - 10 * y),
        "d-name": _place(foot[0] / 2 + 13 * y, foot[1] / 2 - 13 * x),
        **_arrow("d", (x, y), scale),
    }
    parts = still | moving

    def tag(name: str, part: str, fixed: str, content: str = "") -> str:
        given = "".join(f' {key}="{value}"' for key, value in parts[part].items() if key != "text")
        return f'<{name} data-part="{part}"{given} {fixed}>{content or parts[part].get("text", "")}</{name}>'

    def arrow(part: str, look: str, colour: str) -> str:
        head = tag("path", f"{part}-head", f'd="M0 0L-12 5L-12 -5Z" fill="{colour}"')
        return tag("line", part, f'stroke="{colour}" {look}') + head

    def word(part: str, text: str, anchor: str = "middle") -> str:
        return tag("text", part, f'text-anchor="{anchor}" dominant-baseline="central" fill="currentColor"', text)

    thin, thick = 'stroke-width="1.5"', 'stroke-width="3.5"'
    looks = {"v": thin, "projected": thick, "rescaled": f'{thick} stroke-dasharray="8 4"'}  # not by colour alone
    picture = [
        tag("line", "plane", f'stroke="currentColor" {thin} stroke-opacity=".6"'),
        tag("line", "way", f'stroke="currentColor" {thin} stroke-dasharray="2 4"'),
        arrow("d", thick, "currentColor"),
        *(arrow(name, looks[name], COLOURS[name]) for name in ("rescaled", "projected")),
        arrow("v", thin, "currentColor"),
        f'<circle cx="{foot[0]:.2f}" cy="{-foot[1]:.2f}" r="6" fill="{COLOURS["tied"]}" stroke="currentColor"/>',
        word("plane-name", "⟨e, d⟩ = 1", inside),
        word("d-name", "d"),
        word("v-name", "v"),
        *(word(f"{name}-name", f"e {name}", outside) for name in ARROWS),
    ]
    values = []
    for name in ("v", *SHOWN):
        colour = COLOURS.get(name, "currentColor")
        sign = (
            f'<circle cx="15" cy="6" r="5" fill="{colour}" stroke="currentColor"/>'
            if name == "tied"
            else f'<line x1="0" y1="6" x2="30" y2="6" stroke="{colour}" {looks[name]}/>'
        )
        sign = f'<svg viewBox="0 0 30 12" width="30" height="12" aria-hidden="true" style="flex: none">{sign}</svg>'
        row = "display: flex; gap: .6em; align-items: center"
        values.append(f'<div style="{row}">{sign}{tag("span", f"{name}-words", "")}</div>')
    newline = "\n"
    return f"""\
<div class="aligned-geometry" data-angle-d="{float(angle_d)!r}" data-length-v="{float(length_v)!r}" \
style="max-width: 29em; margin: 1em auto">
<svg viewBox="{-EDGE} {-EDGE} {2 * EDGE} {2 * EDGE}" role="img" font-size="17" \
style="display: block; width: 100%; max-width: 100%; height: auto; overflow: hidden">
<title>The constraint for one feature</title>
<desc>Arrows from one point: the decoder row d, the free vector v, and the encoders e that three constraints make of \
them. The encoders end on the line where the inner product of e and d is 1. Their values stand below.</desc>
{newline.join(picture)}
</svg>
<label hidden="">direction of v, in degrees
<input type="range" min="0" max="359" step="1" value="{round(angle_v) % 360}" style="width: 100%"/></label>
<div role="status" aria-live="polite" aria-atomic="true" style="font-variant-numeric: tabular-nums">
{newline.join(values)}
</div>
<script>
{SCRIPT}</script>
</div>
"""


def _scale(length_v: float) -> float:
    """SVG units of a length of 1: the `projected` encoder, no longer than hypot(1, |v|), and its name find room."""
    return EDGE / (math.hypot(1, length_v) + 1)


def _point(row: Float[Tensor, "1 2"]) -> Point:
    x, y = row[0].tolist()
    return x, y


def _line(start: Point, end: Point, scale: float) -> dict[str, str]:
    """y points up here, and down in an SVG."""
    found = {"x1": start[0], "y1": -start[1], "x2": end[0], "y2": -end[1]}
    return {key: f"{value * scale:.2f}" for key, value in found.items()}


def _place(x: float, y: float) -> dict[str, str]:
    return {"x": f"{x:.2f}", "y": f"{-y:.2f}"}


def _arrow(part: str, end: Point | None, scale: float, without: Point = (0, 0)) -> Scene:
    """A line from the middle, cut well beyond the edge, and a head at its end. With no end it runs beyond both edges,
    along `without`, and has no head."""
    start, (x, y) = (0.0, 0.0), end or without
    far = 4 * EDGE / scale / math.hypot(x, y)
    if end is None:
        start = (-far * x, -far * y)
    if end is None or far < 1:
        x, y = far * x, far * y
    turn = f"translate({x * scale:.2f} {-y * scale:.2f}) rotate({-math.degrees(math.atan2(y, x)):.2f})"
    shaft = max(0, 1 - 10 / scale / math.hypot(x, y))  # it ends within the head, which keeps the tip sharp
    return {part: _line(start, (x * shaft, y * shaft), scale), f"{part}-head": {"transform": turn}}


# The same in JavaScript: FORMULAS are `scene` above, line by line (a test compares the two); the rest puts what they
# return into every picture of the page that is not yet live. Nothing is left in the page's global names.
FORMULAS = """\
const EDGE = %(EDGE)s, RIGHT_ANGLE = %(RIGHT_ANGLE)s;
const dot = (a, b) => a[0] * b[0] + a[1] * b[1];
const times = (c, a) => [c * a[0], c * a[1]];
const plus = (a, b) => [a[0] + b[0], a[1] + b[1]];
const vector = (degrees, length) =>
  times(length, [Math.cos(degrees * Math.PI / 180), Math.sin(degrees * Math.PI / 180)]);

const projected = (v, d) => plus(v, times((1 - dot(v, d)) / dot(d, d), d));
const rescaled = (v, d) => times(1 / dot(v, d), v);
const tied = (v, d) => times(1 / dot(d, d), d);

const line = (start, end, scale) => ({
  x1: (start[0] * scale).toFixed(2), y1: (-start[1] * scale).toFixed(2),
  x2: (end[0] * scale).toFixed(2), y2: (-end[1] * scale).toFixed(2),
});
const place = ([x, y]) => ({ x: x.toFixed(2), y: (-y).toFixed(2) });
const arrow = (part, end, scale, without) => {
  let start = [0, 0], tip = end || without;
  const far = 4 * EDGE / scale / Math.hypot(...tip);
  if (!end) start = times(-far, tip);
  if (!end || far < 1) tip = times(far, tip);
  const turn = -Math.atan2(tip[1], tip[0]) * 180 / Math.PI;
  const shaft = Math.max(0, 1 - 10 / scale / Math.hypot(...tip));
  const [x, y] = times(scale, tip);
  return {
    [part]: line(start, times(shaft, tip), scale),
    [`${part}-head`]: { transform: `translate(${x.toFixed(2)} ${(-y).toFixed(2)}) rotate(${turn.toFixed(2)})` },
  };
};

const scene = (angleD, angleV, lengthV) => {
  const d = vector(angleD, 1), v = vector(angleV, lengthV);
  const rightAngle = Math.abs(dot(v, d)) <= RIGHT_ANGLE * lengthV;
  const e = { projected: projected(v, d), rescaled: rightAngle ? null : rescaled(v, d), tied: tied(v, d) };
  const scale = EDGE / (Math.hypot(1, lengthV) + 1);
  const parts = { ...arrow("v", v, scale), way: line(v, e.projected, scale) };
  parts["v-name"] = place(plus(times(scale, v), times(15 / lengthV, [-v[1], v[0]])));
  const places = {};
  for (const name of ["projected", "rescaled"]) {
    Object.assign(parts, arrow(name, e[name], scale, v));
    places[name] = e[name] ? plus(times(scale, e[name]), times(12, d)) : [9999, 0];
  }
  const away = d[1] >= 0 ? 1 : -1;
  if (e.rescaled) {
    const higher = away * (places.rescaled[1] - places.projected[1]);
    const [near, far] = higher > -0.01 ? [places.projected, places.rescaled] : [places.rescaled, places.projected];
    if (Math.abs(higher) < 20) far[1] = near[1] + 20 * away;
  }
  for (const name in places) parts[`${name}-name`] = place(places[name]);
  parts["v-words"] = { text: `v points to ${angleV}°` };
  for (const name in e) {
    let said = "v is at a right angle to d, and this encoder is infinitely long";
    if (e[name]) {
      const beyond = Math.max(...e[name].map(Math.abs)) * scale > EDGE ? ", beyond the edge of the picture" : "";
      said = `⟨e, d⟩ = ${dot(e[name], d).toFixed(3)}, |e| = ${Math.hypot(...e[name]).toFixed(2)}${beyond}`;
    }
    parts[`${name}-words`] = { text: `${name}: ${said}` };
  }
  return parts;
};
"""
FORMULAS = FORMULAS % {"EDGE": EDGE, "RIGHT_ANGLE": RIGHT_ANGLE}
SCRIPT = f"""\
(() => {{
{FORMULAS}
for (const page of document.querySelectorAll(".aligned-geometry:not([data-live])")) {{
  page.dataset.live = "";
  const slider = page.querySelector("input");
  const show = () => {{
    const parts = scene(Number(page.dataset.angleD), Number(slider.value), Number(page.dataset.lengthV));
    for (const [name, {{ text, ...attributes }}] of Object.entries(parts)) {{
      const part = page.querySelector(`[data-part="${{name}}"]`);
      if (text !== undefined) part.textContent = text;
      for (const key in attributes) part.setAttribute(key, attributes[key]);
    }}
    slider.setAttribute("aria-valuetext", `${{slider.value}} degrees`);
  }};
  slider.addEventListener("input", show);
  slider.closest("label").hidden = false;
}}
}})();
"""
