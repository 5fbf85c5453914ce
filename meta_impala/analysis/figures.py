"""The figures of a comparison: improvement per game, learning curves, γ and λ against frames.

Drawn for the width of a README: 9 to 10 inches at 110 dots, text of 9 points and more.
"""

from __future__ import annotations

import math
import pathlib
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from meta_impala.analysis.comparison import Comparison, Improvement
from meta_impala.analysis.curves import COLOURS, Curve, pyplot, read_curve
from meta_impala.analysis.labels import figure_text
from meta_impala.analysis.results import Results
from meta_impala.config.hyper_parameters import GAMMA, LAMBDA, TABLE, in_order
from meta_impala.config.metric_columns import of_head
from meta_impala.config.schema import FIELDS
from meta_impala.errors import UserError
from meta_impala.storage.results_folder import save_figure

PICTURES = frozenset({"improvement.png", "curves.png", "meta_parameters.png"})
_WIDTH = 9.5
_MOST_COLUMNS = 3
_LABEL_WIDTH = 28  # characters, of a vertical one
_DOTS_PER_INCH = 110
_POINTS = 200  # of a band
_MARGIN = 0.08  # inches
_LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (1.5, 1)))
# Beyond this (a fraction), bars are drawn on a scale that is logarithmic outside ±100 %.
_LINEAR_UP_TO = 5.0


def _style(index: int) -> dict[str, Any]:
    """Colour and line style of a variant; each identifies it."""
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": _LINES[index % len(_LINES)]}


def band(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Frames, mean, lowest and highest of several seeds, where all of them have a value.

    Returns:
      Four arrays `[points]`, or None if the curves share no range of frames.
    """
    curves = [curve for curve in curves if curve.frames]
    if not curves:
        return None
    first = max(curve.frames[0] for curve in curves)
    last = min(curve.frames[-1] for curve in curves)
    if first > last:
        return None
    frames = np.linspace(first, last, _POINTS)
    values = np.array([np.interp(frames, curve.frames, curve.values) for curve in curves])
    return frames, values.mean(axis=0), values.min(axis=0), values.max(axis=0)


class _FrameScale(NamedTuple):
    """The unit of the frame axis."""

    size: float
    label: str


def _frame_scale(results: Results) -> _FrameScale:
    if max(result.frames for result in results.found) < 1_000_000:
        return _FrameScale(1e3, "environment frames (thousands)")
    return _FrameScale(1e6, "environment frames (millions)")


def _draw(
    axis: Any,
    results: Results,
    variant: str,
    name: str,
    column: str,
    index: int,
    *,
    is_auxiliary: bool = False,
) -> None:
    """A line and a band; what belongs to an auxiliary head is a thin line without a label."""
    curves = []
    for result in results.of(variant, name):
        try:
            curves.append(read_curve(result.folder, column))
        except UserError:  # evaluated, but its metrics are gone
            continue
    drawn = band(curves)
    if drawn is None:
        return
    frames, mean, low, high = drawn
    style = _style(index)
    scale = _frame_scale(results)
    frames = frames / scale.size
    axis.set_xlabel(scale.label)
    if is_auxiliary:
        axis.plot(frames, mean, linewidth=0.8, alpha=0.7, **style)
        return
    axis.plot(frames, mean, label=figure_text(variant), linewidth=1.8, **style)
    if len(curves) > 1:
        axis.fill_between(frames, low, high, color=style["color"], alpha=0.2, linewidth=0)


def _legend(figure: Any, axes: Sequence[Any], title: str) -> None:
    by_label: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            by_label.setdefault(label, handle)
    figure.legend(
        by_label.values(),
        by_label.keys(),
        loc="outside upper center",
        ncols=min(2, max(1, len(by_label))),
        frameon=False,
        title=title,
        title_fontsize=11,
    )
    figure.get_layout_engine().set(w_pad=_MARGIN, h_pad=_MARGIN)


def _several_seeds(results: Results) -> str:
    counts = {len(results.of(v, n)) for v in results.variants for n in results.names} - {0}
    return " (line: mean of seeds, band: lowest to highest)" if max(counts) > 1 else ""


def draw_learning_curves(results: Results, out: pathlib.Path) -> None:
    """Mean return against frames, one panel per game, a line and a band per variant."""
    plot = pyplot()
    columns = min(2, len(results.names))
    rows = math.ceil(len(results.names) / columns)
    figure, grid = plot.subplots(
        rows, columns, figsize=(_WIDTH, 1.0 + 2.9 * rows), squeeze=False, layout="constrained"
    )
    axes = list(grid.flat)
    for axis, name in zip(axes, results.names, strict=False):
        for index, variant in enumerate(results.variants):
            _draw(axis, results, variant, name, "episode_return", index)
        axis.set_title(figure_text(name), fontsize=11)
        axis.grid(alpha=0.3)
        axis.set_ylabel("return per game (points,\nmean of last 100 games)")
    for axis in axes[len(results.names) :]:
        axis.remove()
    _legend(figure, axes[: len(results.names)], f"Return in training{_several_seeds(results)}")
    save_figure(figure, out, _DOTS_PER_INCH)
    plot.close(figure)


def _panels(results: Results) -> list[tuple[str, str]]:
    """Column and label of what to draw of η."""
    learned = ",".join(str(result.config["meta_parameters"]) for result in results.found)
    others = [name for name in in_order(learned) if name not in (GAMMA, LAMBDA)]
    return [
        (GAMMA, "discount γ (per agent step)"),
        (LAMBDA, "bootstrapping λ"),
        *((name, f"{TABLE[name].meaning} ({TABLE[name].symbol})") for name in others),
    ]


def _symbols(panels: Sequence[tuple[str, str]]) -> str:
    *first, last = (TABLE[name].symbol for name, _ in panels)
    return f"{', '.join(first)} and {last}"


def draw_meta_parameters(results: Results, out: pathlib.Path) -> None:
    """η against frames, a row of panels per game: γ, λ and whatever else a run has learned; that
    of auxiliary heads as thin lines.
    """
    plot = pyplot()
    panels = _panels(results)
    heads = max(result.config.get("auxiliary_heads", 0) for result in results.found)
    heads = min(heads, FIELDS["auxiliary_heads"].metadata["high"])  # a file may have any number
    columns = min(_MOST_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)  # of a game
    figure, grid = plot.subplots(
        rows * len(results.names),
        columns,
        figsize=(_WIDTH, 1.0 + 2.6 * rows * len(results.names)),
        squeeze=False,
        layout="constrained",
    )
    of_games = grid.reshape(len(results.names), rows * columns)
    for axes, name in zip(of_games, results.names, strict=True):
        for axis in axes[len(panels) :]:
            axis.remove()
        for axis, (column, label) in zip(axes, panels, strict=False):
            for index, variant in enumerate(results.variants):
                _draw(axis, results, variant, name, column, index)
                for head in range(2, 2 + heads):
                    _draw(axis, results, variant, name, of_head(column, head), index,
                          is_auxiliary=True)  # fmt: skip
            axis.set_title(figure_text(name), fontsize=11)
            axis.set_ylabel(textwrap.fill(label, _LABEL_WIDTH))
            axis.grid(alpha=0.3)
            axis.ticklabel_format(useOffset=False)
    thin = "; thin: auxiliary heads" if heads else ""
    title = f"{_symbols(panels)} in training{_several_seeds(results)}{thin}"
    _legend(figure, list(of_games[:, : len(panels)].flat), title)
    save_figure(figure, out, _DOTS_PER_INCH)
    plot.close(figure)


def _bar_label(percent: float) -> str:
    return f"{percent:,.0f} %" if abs(percent) >= 10 else f"{percent:.1f} %"


def draw_improvements(comparison: Comparison, out: pathlib.Path) -> None:
    """Relative improvement over the baseline per game, a panel per variant, best game first."""
    plot = pyplot()
    by_variant: dict[str, list[Improvement]] = {}
    for improvement in comparison.improvements:
        by_variant.setdefault(improvement.variant, []).append(improvement)
    heights = [max(2, len(bars)) for bars in by_variant.values()]
    figure, grid = plot.subplots(
        len(by_variant),
        1,
        figsize=(_WIDTH, 1.1 * len(by_variant) + 0.28 * sum(heights) + 0.4),
        squeeze=False,
        layout="constrained",
        gridspec_kw={"height_ratios": heights},
        sharex=True,
    )
    for axis, (variant, bars) in zip(grid[:, 0], by_variant.items(), strict=True):
        bars = sorted(bars, key=lambda bar: bar.value)
        values = [100 * bar.value for bar in bars]
        # Better and worse differ in colour and in direction.
        colours = [COLOURS[0] if value >= 0 else COLOURS[1] for value in values]
        axis.barh([bar.game for bar in bars], values, color=colours, height=0.7)
        axis.bar_label(axis.containers[0], [_bar_label(value) for value in values], padding=3)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.margins(x=0.15)
        axis.set_ylim(-0.7, len(bars) - 0.3)
        axis.set_title(figure_text(variant, 90), fontsize=11)
        axis.grid(axis="x", alpha=0.3)
    if max(abs(i.value) for i in comparison.improvements) > _LINEAR_UP_TO:
        grid[-1, 0].set_xscale("symlog", linthresh=100)
    baseline = figure_text(comparison.marked_baseline)
    grid[-1, 0].set_xlabel(
        f"improvement relative to {baseline}\n(%; 100 is the distance from a random player to the "
        "better of human and baseline)"
    )
    figure.get_layout_engine().set(w_pad=_MARGIN, h_pad=_MARGIN)
    save_figure(figure, out, _DOTS_PER_INCH)
    plot.close(figure)


def draw_all(comparison: Comparison, folder: pathlib.Path) -> list[str]:
    """Draws every picture of `PICTURES` for which there is data; returns the names of the files.

    Raises:
      UserError: if one cannot be written.
    """
    pictures = []
    if comparison.improvements:
        draw_improvements(comparison, folder / "improvement.png")
        pictures.append("improvement.png")
    found = [r for r in comparison.results.found if r.folder.metrics_path.exists()]
    if found:
        with_metrics = comparison.results._replace(found=found)
        draw_learning_curves(with_metrics, folder / "curves.png")
        draw_meta_parameters(with_metrics, folder / "meta_parameters.png")
        pictures += ["curves.png", "meta_parameters.png"]
    return pictures
