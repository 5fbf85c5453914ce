"""Draws the learning curves of run folders: return, γ and λ against frames.

    meta-impala plot --out=curves.png runs/pong runs/breakout

Runs are also found below the folders that are given.
"""

from __future__ import annotations

import math

from absl import flags

from meta_impala import command
from meta_impala.analysis import curves, run_folders
from meta_impala.analysis.labels import printable
from meta_impala.config.list_flags import define_list
from meta_impala.config.text import shown
from meta_impala.errors import UserError, warn
from meta_impala.storage.run_folder import RunFolder
from meta_impala.system.user_path import define_path, user_path

FLAGS = flags.FLAGS

POSITIONAL = "RUN ..."


def define_flags() -> None:
    """The flags of this command."""
    define_path("out", None, "Picture to write: .png, .pdf or .svg. Default: curves.png.")
    define_list("labels", None, "One label per run; default: the folders' names.")
    define_list("levels", None, "Returns; prints the frames at which each is reached.")


def _levels() -> list[float]:
    levels = []
    for text in FLAGS.levels or ():
        try:
            levels.append(float(text))
        except ValueError:
            levels.append(math.nan)
        if not math.isfinite(levels[-1]):
            raise UserError(f"--levels={shown(text)}: must be finite numbers, separated by commas")
    return levels


def _summary(folder: RunFolder, label: str, levels: list[float]) -> list[str]:
    frames = curves.read_curve(folder, "frames").frames[-1]
    try:
        curve = curves.read_curve(folder, "episode_return")
    except UserError:
        curve = curves.Curve([], [])
    if curve.last is None:
        return [f"{label}: no game with a finite return was finished in {frames:,} frames"]
    lines = [f"{label}: {curve.last:.2f} after {frames:,} frames"]
    for level in levels:
        reached = curves.first_passing(curve, level)
        lines.append(
            f"  reaches {level:g}: {'never' if reached is None else f'{reached:,} frames'}"
        )
    return lines


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    if not arguments:
        raise UserError("give at least one run folder, or a folder above runs")
    out = curves.check_picture_path("out", FLAGS.out or str(user_path("curves.png")))
    levels = _levels()
    folders = run_folders.find([str(user_path(path)) for path in arguments])
    labels = run_folders.labels_of(folders, FLAGS.labels)
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
    for line in left_out:
        warn(f"left out: {printable(line)}")
    for line in [*lines, f"wrote {out}"]:
        command.say(printable(line))
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main, POSITIONAL)
