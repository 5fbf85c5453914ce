"""Curves of several runs as inline SVG, whose text can be searched, copied and read aloud.

A chart holds no text that a user chose: the page has one legend for all of them, whose line
samples `swatch` draws.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from meta_impala.analysis.curves import COLOURS, pyplot
from meta_impala.analysis.run_page.markup import Markup, element

# A colour and a dash for each run.
_DASHES: tuple[tuple[float, ...], ...] = ((), (5.0, 2.0), (1.5, 1.5), (6.0, 2.0, 1.5, 2.0))
MOST_RUNS = len(COLOURS) * len(_DASHES)
# More points than pixels are not visible.
_MOST_POINTS = 800
# The running mean of a noisy curve is over this share of its rows.
_SMOOTHED_SHARE = 0.05
_SIZE = (4.2, 2.3)  # inches; at 400 pixels its text is as large as that of the page
_Z = 1.96  # 95 % of a normal distribution


class Curve(NamedTuple):
    """One run in a chart.

    Attributes:
      style: number of the run.
      frames: `[n]`.
      values: `[n]`, NaN where there is none.
    """

    style: int
    frames: np.ndarray
    values: np.ndarray


class Dots(NamedTuple):
    """Measurements with their standard errors (NaN: unknown) in a chart, `[n]` each."""

    style: int
    frames: np.ndarray
    values: np.ndarray
    standard_errors: np.ndarray


def colour(style: int) -> str:
    """Of a run."""
    return COLOURS[style % len(COLOURS)]


def _dashes(style: int) -> tuple[float, ...]:
    return _DASHES[style // len(COLOURS) % len(_DASHES)]


def swatch(style: int) -> Markup:
    """A sample of a run's line, for legends."""
    dashes = " ".join(f"{length * 1.5:g}" for length in _dashes(style)) or "none"
    line = element(
        "line",
        x1="1", x2="33", y1="5", y2="5",
        stroke=colour(style), stroke_width="3", stroke_dasharray=dashes,
    )  # fmt: skip
    return element(
        "svg", line, class_="swatch", viewBox="0 0 34 10", width="34", height="10",
        aria_hidden="true",
    )  # fmt: skip


def thinned(frames: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A curve of at most 800 points that looks the same: the extremes of equal intervals."""
    kept = np.isfinite(values) & np.isfinite(frames)
    frames, values = frames[kept], values[kept]
    if len(values) <= _MOST_POINTS:
        return frames, values
    chosen: set[int] = {0, len(values) - 1}
    for part in np.array_split(np.arange(len(values)), _MOST_POINTS // 2 - 1):
        chosen |= {int(part[values[part].argmin()]), int(part[values[part].argmax()])}
    places = sorted(chosen)
    return frames[places], values[places]


def smoothed(values: np.ndarray) -> np.ndarray:
    """Running mean over 5 % of the rows, over fewer at the ends; NaN is ignored."""
    half = int(len(values) * _SMOOTHED_SHARE / 2)
    if half < 1:
        return values
    finite = np.isfinite(values)
    kernel = np.ones(2 * half + 1)
    sums = np.convolve(np.where(finite, values, 0.0), kernel, mode="same")
    counts = np.convolve(finite.astype(float), kernel, mode="same")
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(finite, sums / counts, np.nan)


def draw(
    name: str,
    description: str,
    curves: Sequence[Curve],
    dots: Sequence[Dots] = (),
    *,
    is_noisy: bool = False,
) -> Markup:
    """A chart against environment frames.

    Args:
      name: unique in the page; letters and dashes.
      description: alternative text.
      curves: of the runs.
      dots: measurements, with 95 % intervals.
      is_noisy: draws the curves pale and their running means on top.

    Returns:
      An `svg` element as wide as what holds it.
    """
    pyplot()
    import matplotlib
    from matplotlib.figure import Figure

    settings: dict[str, Any] = {
        "svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9,
        "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    file = io.StringIO()
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        for curve in curves:
            _draw_curve(axes, curve, is_noisy)
        for measured in dots:
            errors = np.nan_to_num(measured.standard_errors, nan=0.0) * _Z
            axes.errorbar(
                measured.frames, measured.values, errors,
                fmt="o", markersize=3.5, linewidth=1, color=colour(measured.style),
                markeredgecolor="white", markeredgewidth=0.5, zorder=3,
            )  # fmt: skip
        _finish_axes(axes)
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return _inline(file.getvalue(), name, description)


def _draw_curve(axes: Any, curve: Curve, is_noisy: bool) -> None:
    look: dict[str, Any] = {"color": colour(curve.style), "linewidth": 1.4}
    if _dashes(curve.style):
        look["dashes"] = _dashes(curve.style)
    values = curve.values
    if is_noisy:
        values = smoothed(curve.values)
        if values is not curve.values:
            axes.plot(*thinned(curve.frames, curve.values), color=look["color"],
                      linewidth=0.6, alpha=0.3)  # fmt: skip
    frames, values = thinned(curve.frames, values)
    axes.plot(frames, values, marker="o" if len(frames) == 1 else None, **look)


def _finish_axes(axes: Any) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.grid(alpha=0.25, linewidth=0.6)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.margins(x=0.01)


def _inline(svg: str, name: str, description: str) -> Markup:
    """The `svg` element of a file; its ids are made unique in the page."""
    _, start, rest = svg.partition("<svg ")
    svg = start + re.sub(r"<metadata>.*?</metadata>", "", rest, flags=re.DOTALL)
    svg = re.sub(r'(\sid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    head, _, body = svg.partition(">")
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    opening = element("svg", role="img", aria_label=description).removesuffix("></svg>")
    return Markup(opening + head.removeprefix("<svg") + ">" + body.strip())
