"""Learning curves of runs: return, γ and λ against environment frames."""

from __future__ import annotations

import math
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from meta_impala.errors import UserError
from meta_impala.storage.metrics_table import read_metrics
from meta_impala.storage.run_folder import RunFolder

# Okabe and Ito's colours, told apart by colour-blind readers.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


class Curve(NamedTuple):
    """One column of a run's `metrics.csv` against frames; rows without a value are left out."""

    frames: list[int]
    values: list[float]


def read_curve(folder: RunFolder, column: str) -> Curve:
    """A column of a run.

    Raises:
      UserError: if the folder has no metrics or no such column, or they are damaged.
    """
    rows = read_metrics(folder.metrics_path)
    if not rows:
        raise UserError(f"{folder.metrics_path}: there are no metrics yet")
    if column not in rows[0]:
        raise UserError(f"{folder.metrics_path}: has no column {column}")
    kept = [row for row in rows if row[column] != ""]
    try:
        return Curve([int(row["frames"]) for row in kept], [float(row[column]) for row in kept])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder.metrics_path}: is damaged ({error})") from None


def first_passing(curve: Curve, level: float) -> int | None:
    """Frames at the first row whose value is at least `level`, or None."""
    for frames, value in zip(curve.frames, curve.values, strict=True):
        if value >= level:
            return frames
    return None


def pyplot() -> Any:
    """matplotlib's, drawing to files only.

    Raises:
      UserError: if matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise UserError(
            "matplotlib is not installed; install it with: pip install 'meta_impala[analysis]'"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def plot(folders: Sequence[RunFolder], labels: Sequence[str], out: pathlib.Path) -> None:
    """Draws return, γ and λ of the runs against frames, one above the other, as a PNG.

    Raises:
      UserError: if matplotlib is not installed.
    """
    plots = pyplot()
    figure, axes = plots.subplots(
        3, 1, figsize=(8, 8), sharex=True, gridspec_kw={"height_ratios": (2, 1, 1)}
    )
    panels = (
        ("episode_return", "return per game\n(mean of last 100)"),
        ("gamma", "discount γ"),
        ("lambda", "bootstrapping λ"),
    )
    for axis, (column, name) in zip(axes, panels, strict=True):
        for index, (folder, label) in enumerate(zip(folders, labels, strict=True)):
            curve = read_curve(folder, column)
            colour = COLOURS[index % len(COLOURS)]
            millions = [frames / 1e6 for frames in curve.frames]
            axis.plot(millions, curve.values, color=colour, label=label, linewidth=1.5)
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
        axis.ticklabel_format(useOffset=False)
    axes[0].legend(frameon=False)
    axes[-1].set_xlabel("environment frames (millions)")
    longest = max(read_curve(folder, "gamma").frames[-1] for folder in folders)
    axes[-1].set_xlim(0, longest / 1e6 if math.isfinite(longest) else None)
    figure.align_ylabels(axes)
    figure.tight_layout()
    figure.savefig(out, dpi=120)
    plots.close(figure)
