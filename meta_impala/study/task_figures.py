"""Pictures of the study, as SVG text: one per task, of the grid, the curves, s, and γ(t), λ(t)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from meta_impala.analysis import curves
from meta_impala.study import design, effects
from meta_impala.study.records import Record
from meta_impala.study.summary import Task, learned_records, tried_records

_COLOURS = {
    design.LEARNED: "#0072B2",
    design.BEST: "#D55E00",
    design.F99: "#009E73",
    design.REFERENCE: "#56B4E9",
    design.MIXTURE: "#CC79A7",
    design.YOKED: "#E69F00",
    design.CONSTANT: "#000000",
    design.LINEAR: "#8C564B",
    design.RIGHT: "#7F7F7F",
    design.SHUFFLED: "#BCBD22",
    design.BEST_OVERALL: "#A04000",
    design.LEARNED_9: "#1F3B73",
    design.F9: "#66A61E",
}
_MAX_CURVES = 6  # more are not told apart


def _svg(plots: Any, figure: Any) -> str:
    """The figure as SVG text; the same figure gives the same text."""
    import matplotlib

    file = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "study"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    plots.close(figure)
    text = file.getvalue()
    return text[text.index("<svg") :]


def of_task(task: Task) -> str | None:
    """The picture of a task, as SVG; None if it has no run."""
    has_arms = any(arm.records for arm in task.arms.values())
    has_grid = any(task.grid.values())
    if not has_arms and not has_grid:
        return None
    plots = curves.pyplot()
    if not task.grid and len(task.arms) > _MAX_CURVES:
        figure, axes = plots.subplots(1, 2, figsize=(10.5, 0.8 + 0.28 * len(task.arms)))
        _variants(axes[0], axes[1], task)
    else:
        figure, axes = plots.subplots(2, 2, figsize=(10.5, 6.6))
        if task.grid:
            _grid(axes[0, 0], task)
            _scores(axes[0, 1], task)
        else:
            _variants(axes[0, 0], axes[0, 1], task)
        _curves(axes[1, 0], task)
        _schedules(axes[1, 1], task)
    figure.tight_layout()
    return _svg(plots, figure)


def _variants(left: Any, right: Any, task: Task) -> None:
    """Area and last γ of every run, by arm: for a part in which nothing is selected."""
    labels = design.variant_labels(task.part.suite)
    arms = list(task.arms.values())[::-1]
    first = next(iter(task.arms.values()))
    dashed = f"dashed: mean of {labels[first.name]}; " if first.areas else ""
    left.set_title(f"area ({dashed}dotted: random)", fontsize=10)
    right.set_title("last γ", fontsize=10)
    for place, arm in enumerate(arms):
        colour = curves.COLOURS[0] if arm is first else "#333333"
        areas = list(arm.areas.values())
        left.plot(areas, [place] * len(areas), "o", color=colour, alpha=0.5, markersize=4)
        if areas:
            left.plot([np.mean(areas)] * 2, [place - 0.3, place + 0.3], color=colour, linewidth=2)
        gammas = [record.points[-1].gamma for record in arm.records.values() if record.points]
        right.plot(gammas, [place] * len(gammas), "o", color=colour, alpha=0.5, markersize=4)
    left.axvline(task.random, color="#999999", linestyle=":", linewidth=1)
    if first.areas:
        left.axvline(np.mean(list(first.areas.values())), color="#999999", ls="--", lw=1)
    left.set_yticks(range(len(arms)), [labels[arm.name] for arm in arms], fontsize=8)
    right.set_yticks(range(len(arms)), [])
    for axis in (left, right):
        axis.set_ylim(-0.6, len(arms) - 0.4)
        axis.grid(axis="x", alpha=0.3)
    right.ticklabel_format(axis="x", useOffset=False)


def _empty(axis: Any, text: str) -> None:
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes, color="#666666")
    axis.set_xticks([])
    axis.set_yticks([])


def _grid(axis: Any, task: Task) -> None:
    """Areas of the selection runs, by γ and by β."""
    axis.set_title("selection: area by γ (fixed) and by β (learned)", fontsize=10)
    names = [name for name, found in task.grid.items() if found]
    if not names:
        _empty(axis, "nothing is selected in this part" if not task.grid else "no run yet")
        return
    for place, name in enumerate(task.grid):
        areas = [effects.area(record, task.random) for record in task.grid[name]]
        colour = _COLOURS[design.BEST] if name[0] == "F" else _COLOURS[design.LEARNED]
        axis.plot([place] * len(areas), areas, "o", color=colour, alpha=0.6, markersize=4)
        if areas:
            axis.plot([place - 0.25, place + 0.25], [np.mean(areas)] * 2, color=colour)
    chosen = (task.selection.fixed, task.selection.learned)
    labels = [
        ("γ " if name[0] == "F" else "β ") + name[2:] + (" *" if name in chosen else "")
        for name in task.grid
    ]
    axis.axhline(task.random, color="#999999", linestyle=":", linewidth=1)
    axis.set_xticks(range(len(labels)), labels, rotation=45, ha="right", fontsize=8)
    axis.set_ylabel("area (dotted: random)")
    axis.grid(axis="y", alpha=0.3)


def _scores(axis: Any, task: Task) -> None:
    """s of every run by arm, with the interquartile mean and its interval."""
    axis.set_title("confirmation: s by arm (1 is F* on the selection seeds)", fontsize=10)
    shown = [arm for arm in task.arms.values() if arm.s]
    if not shown:
        _empty(axis, "no confirmation run yet")
        return
    for place, arm in enumerate(reversed(shown)):
        values = np.array(list(arm.s.values()))
        colour = _COLOURS.get(arm.name, "#333333")
        axis.plot(values, [place] * len(values), "o", color=colour, alpha=0.35, markersize=4)
        if len(values) >= effects.LEAST_RUNS:
            value, low, high = effects.aggregate({task.name: values})
            axis.plot([low, high], [place, place], color=colour, linewidth=2)
            axis.plot([value], [place], "D", color=colour, markersize=6)
    labels = [f"{arm.name} (n = {len(arm.s)})" for arm in reversed(shown)]
    axis.set_yticks(range(len(labels)), labels, fontsize=9)
    axis.set_ylim(-0.6, len(labels) - 0.4)
    axis.axvline(1.0, color="#999999", linestyle=":", linewidth=1)
    axis.grid(axis="x", alpha=0.3)


def _mean_curve(found: Sequence[Record], random: float) -> tuple[np.ndarray, np.ndarray]:
    """The mean height of the runs at every evaluation, of the curves that areas are below."""
    frames = sorted({point.frames for record in found for point in record.points})
    rows = [np.interp(frames, *effects.curve(record, random)) for record in found]
    return np.array(frames), np.mean(rows, axis=0)


def _curves(axis: Any, task: Task) -> None:
    """Evaluation games against frames: means over seeds."""
    shown = [(arm.name, list(arm.records.values())) for arm in task.arms.values() if arm.records]
    title = "evaluation games, mean over seeds"
    if not shown:
        shown = [
            (("γ " if name[0] == "F" else "β ") + name[2:], list(found))
            for name, found in task.grid.items()
            if found and (name[0] == "F" or name == task.selection.learned)
        ]
        title = "evaluation games, selection seeds, mean"
    shown = [(name, found) for name, found in shown if any(r.points for r in found)]
    if len(shown) > _MAX_CURVES:
        title += f" (the first {_MAX_CURVES} of {len(shown)})"
        shown = shown[:_MAX_CURVES]
    axis.set_title(title, fontsize=10)
    if not shown:
        _empty(axis, "no run yet")
        return
    for index, (name, found) in enumerate(shown):
        frames, values = _mean_curve(found, task.random)
        colour = _COLOURS.get(name, curves.COLOURS[index % len(curves.COLOURS)])
        axis.plot(frames / 1e3, values, color=colour, label=name, linewidth=1.5)
    axis.axhline(task.random, color="#999999", linestyle=":", linewidth=1)
    axis.set_xlabel("environment frames (thousands)")
    axis.set_ylabel("mean return of 20 games")
    axis.legend(frameon=False, fontsize=8, ncols=2)
    axis.grid(alpha=0.3)


def _schedules(axis: Any, task: Task) -> None:
    """γ and λ of the learned runs against frames."""
    found = learned_records(task)
    which = "one line per run"
    if not found:
        found, which = tried_records(task), "runs of every β"
    axis.set_title(f"learned γ(t), solid, and λ(t), dashed: {which}", fontsize=10)
    if not found:
        _empty(axis, "no learned run yet")
        return
    for record in found:
        frames = np.array([point.frames for point in record.points]) / 1e3
        axis.plot(frames, [p.gamma for p in record.points], color="#0072B2", alpha=0.6, lw=1)
        axis.plot(
            frames, [p.lambda_ for p in record.points], color="#D55E00", alpha=0.6, lw=1, ls="--"
        )
    axis.set_xlabel("environment frames (thousands)")
    axis.set_ylabel("γ, λ")
    axis.ticklabel_format(useOffset=False)
    axis.grid(alpha=0.3)
