"""Draws the learning curves of run folders: return, γ and λ against frames.

python tools/plot_runs.py --out=curves.png runs/pong runs/breakout

Runs are also found below the folders that are given.
"""

from __future__ import annotations

import math
import os
import sys
from typing import TextIO

from absl import app, flags

from meta_impala.analysis import curves, run_folders
from meta_impala.analysis.labels import printable
from meta_impala.errors import UserError
from meta_impala.storage.run_folder import RunFolder

_OUT = flags.DEFINE_string("out", "curves.png", "Picture to write: .png, .pdf or .svg.")
_LABELS = flags.DEFINE_list("labels", None, "One label per run; default: the folders' names.")
_LEVELS = flags.DEFINE_list("levels", [], "Returns; prints the frames at which each is reached.")


def _levels() -> list[float]:
    levels = []
    for text in _LEVELS.value:
        try:
            levels.append(float(text))
        except ValueError:
            raise UserError(f"--levels={text}: must be numbers, separated by commas") from None
    return levels


def _labels(folders: list[RunFolder]) -> list[str]:
    """The labels given, or the shortest ends of the runs' paths that tell them apart."""
    if _LABELS.value:
        if len(_LABELS.value) != len(folders):
            raise UserError(
                f"--labels: must be one per run, has {len(_LABELS.value)} for {len(folders)} runs"
            )
        return list(_LABELS.value)
    parts = [folder.path.resolve().parts[1:] or ("/",) for folder in folders]
    for depth in range(1, max(map(len, parts)) + 1):
        ends = ["/".join(path[-depth:]) for path in parts]
        if len(set(ends)) == len(ends):
            break
    return ends


def _summary(folder: RunFolder, label: str, levels: list[float]) -> list[str]:
    frames = curves.read_curve(folder, "frames").frames[-1]
    try:
        curve = curves.read_curve(folder, "episode_return")
    except UserError:
        curve = curves.Curve([], [])
    if curve.last is None:
        return [f"{label}: no game was finished in {frames:,} frames"]
    lines = [f"{label}: {curve.last:.2f} after {frames:,} frames"]
    for level in levels:
        reached = None if math.isnan(level) else curves.first_passing(curve, level)
        lines.append(
            f"  reaches {level:g}: {'never' if reached is None else f'{reached:,} frames'}"
        )
    return lines


def _say(text: str, stream: TextIO | None) -> None:
    """Prints a line, in whatever encoding and whether or not somebody still reads it."""
    if stream is None:
        return
    try:
        encoding = stream.encoding or "utf-8"
        print(printable(text).encode(encoding, "replace").decode(encoding), file=stream, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    try:
        if len(arguments) < 2:
            raise UserError("give at least one run folder, or a folder above runs")
        out, levels = curves.check_picture_path("out", _OUT.value), _levels()
        folders = run_folders.find(arguments[1:])
        labels = _labels(folders)
        lines, drawn, left_out = [], [], []
        for folder, label in zip(folders, labels, strict=True):
            try:
                lines += _summary(folder, label, levels)
                drawn.append((folder, label))
            except UserError as error:
                left_out.append(str(error))
        if not drawn:
            raise UserError("; ".join(left_out))
        curves.plot([folder for folder, _ in drawn], [label for _, label in drawn], out)
    except UserError as error:
        _say(f"error: {error}", sys.stderr)
        return 2
    for line in left_out:
        _say(f"left out: {line}", sys.stderr)
    for line in [*lines, f"wrote {out}"]:
        _say(line, sys.stdout)
    return 0


if __name__ == "__main__":
    app.run(main)
