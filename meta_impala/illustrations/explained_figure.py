"""The figure of the explanations: six panels, one per question (see `explanations`)."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from meta_impala.illustrations.chain_drawing import BLACK, BLUE, COLOURS, GREEN, GREY, VERMILION
from meta_impala.illustrations.chain_experiments import GRID, SPEED_OFFSET, Sweep, root_mean_square
from meta_impala.illustrations.chain_figure import STYLES, symbol_of, tidy, write_caption
from meta_impala.illustrations.chains import ALIASED, make
from meta_impala.illustrations.explanations import Evidence
from meta_impala.illustrations.settings import DISCOUNT, Settings
from meta_impala.storage.results_folder import save_figure

# η -> colour, line style, label: the same in every panel that compares them.
_LINES = {
    "learned": (GREEN, "-", "learned"),
    "ones": (BLACK, "--", "γ = λ = 1"),
    "best": (VERMILION, ":", "best single γ, λ"),
    "best_single": (BLUE, "-.", "best single"),
}


def draw(path: pathlib.Path, settings: Settings, evidence: Evidence) -> None:
    """Draws and writes the figure."""
    figure = Figure(figsize=(13.0, 8.4))
    axes = figure.subplots(
        2,
        3,
        gridspec_kw={
            "hspace": 0.42,
            "wspace": 0.27,
            "left": 0.055,
            "right": 0.985,
            "top": 0.95,
            "bottom": 0.165,
        },
    )
    _draw_sweep(axes[0, 0], settings, evidence.sweep)
    _draw_indexing(axes[0, 1], settings, evidence)
    _draw_targets(axes[0, 2], settings, evidence)
    _draw_errors(axes[1, 0], settings, evidence.sweep)
    if evidence.other_sweep is None:
        _draw_error_over_episodes(axes[1, 1], settings, evidence)
    else:
        _draw_errors(axes[1, 1], settings, evidence.other_sweep)
    _draw_speed(axes[1, 2], evidence)
    reward = "zero" if settings.last_reward == "random" else "random"
    if settings.example != DISCOUNT:
        axes[1, 0].set_title(f"(d) Error of v, last reward {settings.last_reward}", fontsize=10)
        axes[1, 1].set_title(f"(e) Error of v, last reward {reward}", fontsize=10)
    for panel in axes.flat:
        tidy(panel)
    write_caption(figure, _caption(settings), 190)
    save_figure(figure, path)


def _caption(settings: Settings) -> str:
    symbol = symbol_of(settings)
    targets = (
        "(c) The learned γ takes variance out of the returns and puts bias in."
        if settings.example == DISCOUNT
        else r"(c) From a bottleneck, $r_i$ + v(aliased) is noisy and $r_i - r_i$ + v(next "
        "bottleneck) is not."
    )
    return (
        "(a) One update weighs bias by α and variance by α², so the split is clean only for large "
        f"α; lines: mean over states and {settings.seeds} seeds, band: the states of a kind but "
        f"the idle ones. (b) {symbol}(s) of the state left is {symbol}(s+1) of the state arrived "
        f"in: the same run, one state earlier, so the kinds exchange their values. {targets} "
        "Error: root mean square of v(s) − true v(s) over states, seeds and episodes; best single "
        f"γ, λ: of a grid of {len(GRID)} × {len(GRID)}, the same for all states. (f) v started "
        f"{SPEED_OFFSET:g} too high."
    )


def _draw_sweep(axes: Any, settings: Settings, sweep: Sweep) -> None:
    kinds = np.array(make(settings).kinds)
    means = sweep.eta.mean(axis=-1)  # [R, T]
    moved = np.abs(means - settings.start).max(axis=0) > 1e-9
    for kind in dict.fromkeys(kinds):
        chosen = means[:, (kinds == kind) & moved]
        if not chosen.shape[1]:
            continue
        low, high, middle = chosen.min(axis=1), chosen.max(axis=1), chosen.mean(axis=1)
        axes.fill_between(sweep.step_sizes, low, high, color=COLOURS[kind], alpha=0.2, linewidth=0)
        style = STYLES[kind] + ("o" if STYLES[kind] == "-" else "s")
        axes.plot(sweep.step_sizes, middle, style, color=COLOURS[kind], markersize=4, label=kind)
    _step_size_axis(axes, sweep)
    axes.set(ylim=(-0.02, 1.02), ylabel=f"final {symbol_of(settings)}(s) (dimensionless)")
    axes.set_title("(a) The split and the inner step size", fontsize=10)
    axes.legend(fontsize=8)


def _step_size_axis(axes: Any, sweep: Sweep) -> None:
    axes.set_xscale("log")
    axes.set_xticks(sweep.step_sizes, [f"{step_size:g}" for step_size in sweep.step_sizes])
    axes.minorticks_off()
    axes.set_xlabel("inner step size α (dimensionless)")


def _draw_indexing(axes: Any, settings: Settings, evidence: Evidence) -> None:
    process = make(settings)
    run = evidence.indexing[process.num_states]
    states = np.arange(process.num_states) + 1
    for name, final, filled in (("arrived in", run.arrived, True), ("left", run.left, False)):
        axes.plot(states, final.mean(axis=-1), "-" if filled else ":", color=GREY, linewidth=1)
        for state, kind in enumerate(process.kinds):
            axes.plot(
                state + 1,
                final[state].mean(),
                "o" if filled else "^",
                color=COLOURS[kind],
                markerfacecolor=COLOURS[kind] if filled else "white",
                markersize=6,
            )
        face = GREY if filled else "white"
        marker = "o-" if filled else "^:"
        axes.plot([], [], marker, color=GREY, markerfacecolor=face, label=f"state {name}")
    axes.set_xticks(states)
    axes.tick_params(axis="x", labelsize=8 if len(states) < 20 else 4)
    symbol = symbol_of(settings)
    axes.set(ylim=(-0.02, 1.02), xlabel="state s", ylabel=f"final {symbol}(s) (dimensionless)")
    axes.set_title(f"(b) Whose {symbol}: of the state arrived in, or left", fontsize=10)
    axes.legend(fontsize=8)


def _draw_targets(axes: Any, settings: Settings, evidence: Evidence) -> None:
    kinds = np.array(make(settings).kinds)
    if settings.example == DISCOUNT:
        states = np.arange(len(kinds))
        bars = {"γ = 1": ("γ = 1", GREY), "learned": ("learned γ", GREEN)}
        axes.set_title("(c) Variance of the target of each state", fontsize=10)
    else:
        states = np.flatnonzero(kinds[1:] == ALIASED)
        bars = {
            "bootstrapped": (r"$r_i$ + v(aliased)", VERMILION),
            "through": (r"$r_i - r_i$ + v(next)", BLUE),
            "learned": ("learned λ", GREEN),
        }
        axes.set_title("(c) Variance of the targets of a bottleneck", fontsize=10)
    width = 0.8 / len(bars)
    highest = max(evidence.targets[name].variance[states].max() for name in bars)
    for index, (name, (label, colour)) in enumerate(bars.items()):
        heights = evidence.targets[name].variance[states]
        places = np.arange(len(states)) + (index - (len(bars) - 1) / 2) * width
        axes.bar(places, heights, width, color=colour, label=label)
        if len(states) < 12:
            for place, height in zip(places, heights, strict=True):
                text = f"{height:.1f}" if height >= 1 else f"{height:.2f}"
                axes.text(place, height + 0.015 * highest, text, ha="center", fontsize=5.5)
    axes.set_xticks(np.arange(len(states)), [str(state + 1) for state in states])
    axes.set(xlabel="state s", ylabel="variance of g (reward²)", ylim=(0, 1.45 * highest + 1e-9))
    axes.legend(fontsize=8, loc="upper right")


def _draw_errors(axes: Any, settings: Settings, sweep: Sweep) -> None:
    for name, (colour, style, label) in _LINES.items():
        if name == "best_single":
            label = f"{label} {symbol_of(settings)}"
        axes.plot(
            sweep.step_sizes, sweep.error(name), style, color=colour, marker="o", ms=3, label=label
        )
    _step_size_axis(axes, sweep)
    _error_axis(axes)
    axes.set_title("(d) Error of v", fontsize=10)
    axes.legend(fontsize=8)


def _error_axis(axes: Any) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("error of v (reward)")


def _draw_error_over_episodes(axes: Any, settings: Settings, evidence: Evidence) -> None:
    history, sweep = evidence.history, evidence.sweep
    row = sweep.row_of(settings.inner_step_size)
    errors = root_mean_square(history.squared_errors[1:], (1, 2))
    colour, style, label = _LINES["learned"]
    axes.plot(history.episodes[1:], errors, style, color=colour, label=label)
    for name in ("ones", "best"):
        colour, style, label = _LINES[name]
        axes.axhline(sweep.error(name)[row], color=colour, linestyle=style, label=f"{label}, fixed")
    axes.set(ylim=(0, None), xlabel="episodes (one update each)", ylabel="error of v (reward)")
    axes.set_title(
        f"(e) Error of v while γ is learned, α = {settings.inner_step_size:g}", fontsize=10
    )
    axes.legend(fontsize=8)


def _draw_speed(axes: Any, evidence: Evidence) -> None:
    for name, errors in evidence.speed.errors.items():
        colour, style, label = _LINES[name]
        axes.plot(np.arange(len(errors)), errors, style, color=colour, label=label)
    _error_axis(axes)
    axes.set_xlabel("episodes (one update each)")
    axes.set_title("(f) Speed of learning v, η fixed", fontsize=10)
    axes.legend(fontsize=8)
