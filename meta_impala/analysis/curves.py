"""Learning curves of runs: return, γ and λ against environment frames."""

from __future__ import annotations

import math
import os
import pathlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from meta_impala.analysis.labels import figure_text
from meta_impala.errors import UserError, one_line
from meta_impala.storage import run_status
from meta_impala.storage.metrics_table import Table, lines_named, read_table
from meta_impala.storage.results_folder import check_file, save_figure
from meta_impala.storage.run_folder import RunFolder

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
# matplotlib computes squares and sums of the values it draws.
_LARGEST = 1e100
_MOST_FRAMES = 10**15
_PANELS = (
    ("episode_return", "return per game\n(mean of last 100)"),
    ("gamma", "discount γ"),
    ("lambda", "bootstrapping λ"),
)


class Curve(NamedTuple):
    """One column of a run's `metrics.csv` against frames. Rows without a value are left out; values
    that are not finite are NaN."""

    frames: list[int]
    values: list[float]

    @property
    def last(self) -> float | None:
        """The last finite value, or None."""
        return next((value for value in reversed(self.values) if math.isfinite(value)), None)


def _value(text: str) -> float:
    value = float(text)
    return value if abs(value) <= _LARGEST else math.nan


def _frames(text: str) -> int:
    frames = int(text)
    if frames > _MOST_FRAMES:
        raise ValueError(f"frames are at most {_MOST_FRAMES:,}")
    return frames


def read_run_table(folder: RunFolder) -> Table:
    """The `metrics.csv` of a run; without rows if there is none yet.

    Raises:
      UserError: if it cannot be read, or every line of it is damaged.
    """
    path = folder.metrics_path
    try:
        table = read_table(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({one_line(error)})") from None
    if table.damaged and not table.rows:
        raise UserError(
            f"{path}: has no row that can be read: {len(table.damaged)} of its lines are damaged "
            f"({lines_named(table.damaged)})"
        )
    return table


def read_rows(folder: RunFolder) -> list[dict[str, str]]:
    """The rows of a run's `metrics.csv`.

    Raises:
      UserError: if there are none, or they cannot be read.
    """
    rows = read_run_table(folder).rows
    if not rows:
        raise no_metrics(folder, run_status.read_status(folder))
    return rows


def no_metrics(folder: RunFolder, status: Mapping[str, Any]) -> UserError:
    """The error of a run without a row of metrics: it has none yet, or they are lost.

    Args:
      folder: of the run.
      status: of `run_status.read_status`.
    """
    failure = run_status.sentence_of_failure(status)
    why = "" if failure is None else f"; {failure}"
    lost = run_status.lost_metrics(folder, status)
    return UserError((lost or f"{folder.metrics_path}: there are no metrics yet") + why)


def read_curve(folder: RunFolder, column: str) -> Curve:
    """A column of a run.

    Raises:
      UserError: if the folder has no metrics or no such column, or they are damaged.
    """
    rows = read_rows(folder)
    if column not in rows[0]:
        raise UserError(f"{folder.metrics_path}: has no column {column}")
    kept = [row for row in rows if row[column] != ""]
    try:
        return Curve(
            [_frames(row["frames"]) for row in kept], [_value(row[column]) for row in kept]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder.metrics_path}: is damaged ({one_line(error)})") from None


def first_passing(curve: Curve, level: float) -> int | None:
    """Frames at the first row whose value is at least `level`, or None."""
    for frames, value in zip(curve.frames, curve.values, strict=True):
        if value >= level:
            return frames
    return None


def pyplot() -> Any:
    """matplotlib's pyplot, drawing to files only."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # A character that the font lacks is drawn as a box.
    warnings.filterwarnings("ignore", "Glyph", UserWarning)
    return pyplot


def check_picture_path(flag: str, text: str) -> pathlib.Path:
    """The path of a picture to write, in a folder that exists.

    Raises:
      UserError: naming the flag, if it is not.
    """
    path = pathlib.Path(os.path.expanduser(text))
    return check_file(path, flag, ".png", ".pdf", ".svg")


def _curve_or_nothing(folder: RunFolder, column: str) -> Curve:
    try:
        return read_curve(folder, column)
    except UserError:
        return Curve([], [])


def plot(folders: Sequence[RunFolder], labels: Sequence[str], out: pathlib.Path) -> None:
    """Draws return, γ and λ of the runs against frames, one above the other.

    A run without a column, or without a value in it, has no line in its panel.

    Args:
      folders: of runs with metrics.
      labels: one each; any text.
      out: a PNG, PDF or SVG.

    Raises:
      UserError: if the picture cannot be written.
    """
    plots = pyplot()
    figure, axes = plots.subplots(
        3, 1, figsize=(8, 8), sharex=True, gridspec_kw={"height_ratios": (2, 1, 1)}
    )
    longest = 0
    for axis, (column, name) in zip(axes, _PANELS, strict=True):
        for index, (folder, label) in enumerate(zip(folders, labels, strict=True)):
            curve = _curve_or_nothing(folder, column)
            longest = max([longest, *curve.frames])
            axis.plot(
                [frames / 1e6 for frames in curve.frames],
                curve.values,
                color=COLOURS[index % len(COLOURS)],
                label=figure_text(label),
                linewidth=1.5,
                marker="o" if len(curve.frames) == 1 else None,
            )
        axis.set_ylabel(name)
        axis.grid(alpha=0.3)
        axis.ticklabel_format(useOffset=False)
    axes[0].legend(frameon=False)
    axes[-1].set_xlabel("environment frames (millions)")
    axes[-1].set_xlim(0, max(longest, 1) / 1e6)
    figure.align_ylabels(axes)
    figure.tight_layout()
    save_figure(figure, out, dpi=120)
    plots.close(figure)
