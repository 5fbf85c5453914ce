"""The figure of an example, laid out as the paper's figure 1.

The process at the top; below it γ(s) or λ(s) against episodes, mean and 20 to 80 % band over
seeds, and violins of the final values, the odd states left and the even ones right. Besides the
colours, line style and place tell the two kinds of state apart.
"""

from __future__ import annotations

import pathlib
import textwrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from meta_impala.illustrations.chain_drawing import BLACK, COLOURS, MAX_DRAWN_STATES, draw_process
from meta_impala.illustrations.chain_results import BAND
from meta_impala.illustrations.chains import ALIASED, BOTTLENECK, NOISE, SIGNAL, Process, make
from meta_impala.illustrations.settings import ARRIVED, DISCOUNT, Settings
from meta_impala.storage.results_folder import save_figure

STYLES = {SIGNAL: "-", BOTTLENECK: "-", NOISE: "--", ALIASED: "--"}


def symbol_of(settings: Settings) -> str:
    """ "γ" or "λ", the learned one."""
    return "γ" if settings.learned == "gamma" else "λ"


def tidy(axes: Any) -> None:
    """Removes the frame that carries no information."""
    axes.spines[["top", "right"]].set_visible(False)


def draw_example(
    path: pathlib.Path, settings: Settings, episodes: np.ndarray, eta: np.ndarray
) -> None:
    """Draws and writes the figure.

    Args:
      path: of the PNG.
      settings: of the run.
      episodes: `[P+1]`.
      eta: γ(s) or λ(s), `[P+1, T, seeds]`.
    """
    process = make(settings)
    process_height = 1.5 if settings.example == DISCOUNT else 2.4
    figure = Figure(figsize=(10.5, 5.6 + process_height))
    grid = figure.add_gridspec(
        2,
        2,
        height_ratios=[process_height, 4.1],
        width_ratios=[1.15, 1.0],
        hspace=0.2,
        wspace=0.2,
        left=0.065,
        right=0.985,
        top=0.96,
        bottom=0.19,
    )
    draw_process(figure.add_subplot(grid[0, :]), settings, process)
    _draw_curves(figure.add_subplot(grid[1, 0]), settings, process, episodes, eta)
    _draw_violins(figure.add_subplot(grid[1, 1]), settings, process, eta[-1])
    write_caption(figure, caption(settings), 156)
    save_figure(figure, path)


def write_caption(figure: Any, text: str, width: int) -> None:
    """A caption along the lower edge, lines of at most `width` characters."""
    lines = textwrap.fill(text, width)
    figure.text(0.03, 0.012, lines, fontsize=8.5, va="bottom", linespacing=1.35)


def caption(settings: Settings) -> str:
    """The caption: what is shown, why it is so, and the settings."""
    symbol, learned = symbol_of(settings), settings.learned
    arrived = settings.indexing == ARRIVED
    idle = (
        f"nothing arrives in state 1, so {symbol}(1) never moves"
        if arrived
        else f"the last state's successor is terminal, so its {symbol} never moves"
    )
    if settings.example == DISCOUNT:
        why = (
            "A low γ on a noise state keeps the noise paid on leaving it out of the values of all "
            "states before; a high γ on a signal state lets the signal through."
            if arrived
            else "The γ of a signal state now gates the noise that comes next, so it is the low "
            "one: the same numbers as with --indexing=arrived, one state earlier."
        )
    else:
        why = (
            r"A high λ on an aliased state lets the reward that takes $\pm r_i$ back into the "
            r"bottleneck's target; a low one puts the aliased state's value there, which does not "
            r"know the $r_i$ that was paid."
            if arrived
            else "The λ of a bottleneck now decides whether to bootstrap in the aliased state that "
            "comes next: the same numbers as with --indexing=arrived, one state earlier."
        )
    fixed = f"λ = {settings.lambda_:g}" if learned == "gamma" else f"γ = {settings.gamma:g}"
    belongs = "arrived in" if arrived else "left"
    return (
        f"{symbol}(s) of a transition is that of the state {belongs}; {idle}. {why} Left: mean "
        f"over {settings.seeds} seeds and band from {BAND[0]} to {BAND[1]} %. Right: violins over "
        f"seeds, median (white) and mean (bar). Fixed {fixed}; reference γ' = "
        f"{settings.reference_gamma:g}, λ' = {settings.reference_lambda:g}; inner step α = "
        f"{settings.inner_step_size:g} ({settings.inner_optimizer}), meta step β = "
        f"{settings.meta_step_size:g} ({settings.meta_optimizer}), μ = {settings.trace_decay:g}, "
        f"θ {settings.theta}."
    )


def _draw_curves(
    axes: Any, settings: Settings, process: Process, episodes: np.ndarray, eta: np.ndarray
) -> None:
    low, high = np.percentile(eta, BAND, axis=-1)
    means = eta.mean(axis=-1)
    seen: set[str] = set()
    for state, kind in enumerate(process.kinds):
        label = None if kind in seen else f"{kind} (s {'odd' if state % 2 == 0 else 'even'})"
        seen.add(kind)
        axes.fill_between(
            episodes, low[:, state], high[:, state], color=COLOURS[kind], alpha=0.13, linewidth=0
        )
        axes.plot(
            episodes, means[:, state], STYLES[kind], color=COLOURS[kind], linewidth=1.4, label=label
        )
    span = episodes[-1]
    if process.num_states <= 2 * MAX_DRAWN_STATES:
        for state, place in enumerate(_spread(means[-1], 0.034)):
            colour = COLOURS[process.kinds[state]]
            axes.text(span * 1.02, place, str(state + 1), fontsize=7.5, color=colour, va="center")
    symbol = symbol_of(settings)
    axes.set(
        xlim=(0, span * 1.07),
        ylim=(-0.02, 1.02),
        xlabel="episodes (one update each)",
        ylabel=f"{symbol}(s) (dimensionless)",
    )
    axes.set_title(f"{symbol}(s) while it is learned; the numbers are the states", fontsize=10)
    axes.legend(loc="upper left" if settings.example == DISCOUNT else "lower left", fontsize=8)
    tidy(axes)


def _spread(places: np.ndarray, distance: float) -> np.ndarray:
    """Moves labels apart to at least `distance`, keeping their order."""
    order = np.argsort(places, kind="stable")
    moved = places[order].astype(float)
    for _ in range(200):
        gaps = np.diff(moved)
        close = np.flatnonzero(gaps < distance - 1e-9)
        if not len(close):
            break
        for index in close:
            push = (distance - (moved[index + 1] - moved[index])) / 2
            moved[index] -= push
            moved[index + 1] += push
    result = np.empty_like(moved)
    result[order] = moved
    return result


def _draw_violins(axes: Any, settings: Settings, process: Process, final: np.ndarray) -> None:
    states = np.arange(process.num_states)
    groups = (states[::2], states[1::2])
    gap = len(groups[0]) + 0.8
    places = np.concatenate([np.arange(len(groups[0])), gap + np.arange(len(groups[1]))])
    order = np.concatenate(groups)
    for place, state in zip(places, order, strict=True):
        colour = COLOURS[process.kinds[state]]
        if settings.seeds > 1 and np.ptp(final[state]) > 1e-6:
            parts = axes.violinplot(final[state], positions=[place], widths=0.8, showextrema=False)
            parts["bodies"][0].set(facecolor=colour, edgecolor=colour, alpha=0.55)
        else:
            axes.hlines(final[state, 0], place - 0.4, place + 0.4, color=colour)
        axes.hlines(final[state].mean(), place - 0.2, place + 0.2, color=BLACK, linewidth=1)
        axes.plot(place, np.median(final[state]), "o", color="white", mec=colour, markersize=5)
    symbol = symbol_of(settings)
    axes.set_xticks(places, [str(state + 1) for state in order])
    axes.tick_params(axis="x", labelsize=8 if process.num_states < 30 else 4)
    axes.set(ylim=(-0.02, 1.02), xlabel="state s", ylabel=f"final {symbol}(s) (dimensionless)")
    centres = [places[: len(groups[0])].mean(), places[len(groups[0]) :].mean()]
    for centre, group, parity in zip(centres, groups, ("odd", "even"), strict=True):
        kind = process.kinds[group[0]]
        text = f"{parity} states: {kind}"
        axes.text(centre, 1.03, text, ha="center", va="bottom", fontsize=10, color=COLOURS[kind])
    tidy(axes)
