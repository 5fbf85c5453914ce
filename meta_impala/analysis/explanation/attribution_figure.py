"""The figure of `meta_impala.explain`: four panels, one per question."""

from __future__ import annotations

import itertools
import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from meta_impala.algorithm.attribution import SPLIT_PLACES, TIMED_PLACES
from meta_impala.analysis.curves import COLOURS
from meta_impala.analysis.explanation.attribution_report import SYMBOLS, Estimate, Report
from meta_impala.analysis.labels import figure_text
from meta_impala.storage.results_folder import save_figure

_COLOURS = dict(zip(SYMBOLS, itertools.cycle(COLOURS), strict=False))
_MARKERS = dict(zip(SYMBOLS, itertools.cycle("os^vDP*"), strict=False))
_LINES = dict(zip(TIMED_PLACES, ("-", "--"), strict=True))
_GREY = "#555555"


def draw(path: pathlib.Path, title: str, result: Report) -> None:
    """Draws and writes the figure.

    Pushes are divided by their typical size (the mean of their absolute value over the batches), so
    that γ's and λ's, which can differ by orders of magnitude, share an axis.

    Raises:
      UserError: if it cannot be written.
    """
    scales = scales_of(result)
    figure = Figure(figsize=(12.5, 8.6), layout="constrained")
    axes = figure.subplots(2, 2)
    _draw_batches(axes[0, 0], result, scales)
    _draw_places(axes[0, 1], result, scales)
    _draw_time(axes[1, 0], result, scales)
    _draw_cosines(axes[1, 1], result)
    for panel in axes.flat:
        panel.spines[["top", "right"]].set_visible(False)
    sizes = ", ".join(f"{SYMBOLS[name]} {scales[name]:.1e}" for name in result.learned)
    figure.suptitle(
        f"{figure_text(title, 100)}: what the meta-gradient does\n"
        f"push = −dJ'/dx in units of its typical size in a batch ({sizes}); "
        "above 0 the parameter goes up",
        fontsize=11,
    )
    save_figure(figure, path)


def scales_of(result: Report) -> dict[str, float]:
    """The typical size of the push of each meta-parameter, over the batches in which it is finite;
    1 if all are 0."""
    sizes = {
        name: np.abs(pushes[np.isfinite(pushes)])
        for name, pushes in zip(result.learned, result.pushes.T, strict=True)
    }
    return {name: float(of_name.mean()) or 1.0 for name, of_name in sizes.items()}


def _scaled(pushes: list[Estimate], scale: float) -> tuple[np.ndarray, np.ndarray]:
    means = np.array([push.mean or 0.0 for push in pushes])
    errors = np.array([push.standard_error or 0.0 for push in pushes])
    return means / scale, errors / scale


def _draw_batches(axes: Any, result: Report, scales: dict[str, float]) -> None:
    batches = np.arange(len(result.pushes)) + 1
    axes.axhline(0.0, color=_GREY, linewidth=0.8)
    for index, name in enumerate(result.learned):
        colour, heading = _COLOURS[name], result.headings[name]
        pushes = result.pushes[:, index] / scales[name]
        pushes[~np.isfinite(pushes)] = np.nan  # left out
        t = "" if heading.push.t is None else f", t = {heading.push.t:.1f}"
        up = f"{heading.up} of {heading.push.batches} up"
        axes.plot(
            batches,
            pushes,
            _MARKERS[name],
            color=colour,
            markersize=5,
            label=f"{SYMBOLS[name]} ({heading.value:.4f}): {up}{t}",
        )
        means, errors = _scaled([heading.push], scales[name])
        axes.axhline(means[0], color=colour, linewidth=1.5)
        axes.axhspan(means[0] - errors[0], means[0] + errors[0], color=colour, alpha=0.15, lw=0)
    axes.set(xlabel="batch", ylabel="push (typical size = 1)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("(a) Where they are heading: every batch, mean ± standard error", fontsize=10)
    axes.margins(y=0.2)
    axes.legend(fontsize=8)


def _draw_places(axes: Any, result: Report, scales: dict[str, float]) -> None:
    rows = np.arange(len(SPLIT_PLACES) + 1)
    height = 0.8 / len(result.learned)
    for index, name in enumerate(result.learned):
        pushes = [*result.by_place[name].values(), result.headings[name].push]
        means, errors = _scaled(pushes, scales[name])
        axes.barh(
            rows + (index - (len(result.learned) - 1) / 2) * height,
            means,
            height,
            xerr=errors,
            color=_COLOURS[name],
            error_kw={"elinewidth": 1.0, "capsize": 2.0},
            label=SYMBOLS[name],
        )
    axes.axvline(0.0, color=_GREY, linewidth=0.8)
    axes.axhline(len(SPLIT_PLACES) - 0.5, color=_GREY, linewidth=0.8, linestyle=":")
    closed = [
        place if place in result.open_places else f"{place} (closed)" for place in SPLIT_PLACES
    ]
    axes.set_yticks(rows, [*closed, "all together"])
    axes.invert_yaxis()
    axes.set_xlabel("push (typical size = 1)")
    axes.set_title("(b) Through which place η acts on the update", fontsize=10)
    axes.legend(fontsize=8)


def _draw_time(axes: Any, result: Report, scales: dict[str, float]) -> None:
    axes.axhline(0.0, color=_GREY, linewidth=0.8)
    for name in result.learned:
        for place, pushes in result.by_time[name].items():
            means, errors = _scaled(pushes, scales[name])
            steps = np.arange(len(means)) + 1
            colour = _COLOURS[name]
            axes.plot(
                steps,
                means,
                _LINES[place] + _MARKERS[name],
                color=colour,
                markersize=3.5,
                label=f"{SYMBOLS[name]}, {place}",
            )
            axes.fill_between(steps, means - errors, means + errors, color=colour, alpha=0.12, lw=0)
    axes.set(
        xlabel="agent steps into the unroll, of the state arrived in",
        ylabel="push (typical size = 1)",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_title("(c) Through which time step of the unroll", fontsize=10)
    axes.legend(fontsize=8)


def _draw_cosines(axes: Any, result: Report) -> None:
    rows = np.arange(len(result.agreements))
    of_x = "dJ'/dx" if len(result.learned) > 1 else "sign of dJ'/dx"
    for shift, label, colour, marker, column in (
        (-0.12, "∇_θ' J'", COLOURS[2], "D", [a.directions for a in result.agreements]),
        (0.12, of_x, COLOURS[3], "o", [a.meta_gradients for a in result.agreements]),
    ):
        means, errors = _scaled(column, 1.0)
        known = np.array([cosine.mean is not None for cosine in column])
        axes.errorbar(
            means[known],
            (rows + shift)[known],
            xerr=errors[known],
            fmt=marker,
            color=colour,
            capsize=2.5,
            label=label,
        )
    axes.axvline(0.0, color=_GREY, linewidth=0.8)
    axes.set_yticks(
        rows, [agreement.pair.replace(", ", "\n", 1) for agreement in result.agreements]
    )
    axes.tick_params(axis="y", labelsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(-1.05, 1.05), xlabel="cosine (1: same direction, 0: unrelated, −1: opposite)")
    axes.set_title("(d) How independent τ' is: do two meta batches agree?", fontsize=10)
    axes.legend(fontsize=8, loc="lower right")
