"""A process drawn as a chain: its states, and the reward of every transition.

Colours are from Okabe and Ito's palette, which colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle

from meta_impala.illustrations.chains import ALIASED, BOTTLENECK, NOISE, SIGNAL, Process
from meta_impala.illustrations.settings import DISCOUNT, Settings

BLUE, VERMILION, GREEN, BLACK, GREY = "#0072B2", "#D55E00", "#009E73", "#000000", "#777777"
COLOURS = {SIGNAL: BLUE, BOTTLENECK: BLUE, NOISE: VERMILION, ALIASED: VERMILION}

MAX_DRAWN_STATES = 11
_MAX_DRAWN_BRANCHES = 4
_RADIUS = 0.26


def draw_process(axes: Any, settings: Settings, process: Process) -> None:
    """The chain of states with the reward of every transition; long chains are shortened."""
    count = process.num_states
    drawn: Sequence[int | None] = range(count)
    if count > MAX_DRAWN_STATES:
        first = MAX_DRAWN_STATES - 3
        drawn = [*range(first), None, *range(count - 1 - (count % 2 == first % 2), count)]
    is_discount = settings.example == DISCOUNT
    heights = _branch_heights(settings.branches)
    for place, state in enumerate(drawn):
        if state is None:
            axes.text(place, 0, "…", ha="center", va="center", fontsize=16)
            continue
        kind = process.kinds[state]
        many = kind == ALIASED
        if many:
            _box_of_branches(axes, place, heights)
        for height in heights if many else (0.0,):
            radius = _RADIUS * (0.62 if many else 1.0)
            circle = Circle((place, height), radius, facecolor=COLOURS[kind], zorder=3)
            axes.add_patch(circle)
            if not many:
                axes.text(
                    place, height, str(state + 1), color="white", ha="center", va="center", zorder=4
                )
        if many:
            hidden = settings.branches > len(heights)
            text = f"{state + 1} (n = {settings.branches})" if hidden else f"{state + 1}"
            axes.text(place, -1.2, text, color=COLOURS[kind], ha="center", va="center")
        _draw_transition(axes, settings, process, place, state, heights)
    end = len(drawn)
    axes.add_patch(
        Rectangle((end - 0.22, -0.22), 0.44, 0.44, facecolor="white", edgecolor=BLACK, zorder=3)
    )
    axes.text(end, -0.52, "end", ha="center", va="center", fontsize=8)
    axes.set_xlim(-0.5, end + 0.5)
    axes.set_ylim(*((-0.9, 0.7) if is_discount else (-1.35, 1.25)))
    axes.set_aspect("equal")
    axes.axis("off")
    title = (
        f"Odd states pay a signal, R = {settings.signal:+g}; even states pay noise, "
        f"R ~ N(0, {settings.noise**2:g})"
        if is_discount
        else r"Leaving a bottleneck for an aliased state pays a random $\pm r_i$ (variance "
        f"{settings.noise**2:g}), leaving that takes it back"
    )
    axes.set_title(title, fontsize=10)


def _branch_heights(branches: int) -> tuple[float, ...]:
    shown = min(branches, _MAX_DRAWN_BRANCHES)
    return tuple(np.linspace(0.72, -0.72, shown))


def _box_of_branches(axes: Any, place: float, heights: tuple[float, ...]) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (place - 0.2, heights[-1] - 0.2),
            0.4,
            heights[0] - heights[-1] + 0.4,
            boxstyle="round,pad=0.06",
            facecolor=VERMILION,
            alpha=0.15,
            linewidth=0,
        )
    )


def _draw_transition(
    axes: Any,
    settings: Settings,
    process: Process,
    place: int,
    state: int,
    heights: tuple[float, ...],
) -> None:
    kind = process.kinds[state]
    last = state == process.num_states - 1
    into_aliased = not last and process.kinds[state + 1] == ALIASED
    starts = heights if kind == ALIASED else (0.0,)
    ends = heights if into_aliased else (0.0,)
    for start in starts:
        for end in ends:
            axes.annotate(
                "",
                (place + 1 - (0.18 if into_aliased else _RADIUS), end),
                (place + (0.18 if kind == ALIASED else _RADIUS), start),
                arrowprops={"arrowstyle": "->", "color": GREY, "linewidth": 0.9},
            )
    label = {
        SIGNAL: f"{settings.signal:+g}",
        NOISE: "noise",
        BOTTLENECK: r"$\pm r_i$",
        ALIASED: r"$\mp r_i$",
    }[kind]
    if kind == BOTTLENECK and last:
        label = r"$\pm r$" if settings.last_reward == "random" else "0"
    height = 0.16 if settings.example == DISCOUNT or last else 0.8
    axes.text(place + 0.5, height, label, ha="center", va="bottom", fontsize=8.5)
