"""Draws the learning curves of run folders: return, γ and λ against frames.

meta-impala plot --out=curves.png runs/pong runs/breakout
"""

from __future__ import annotations

import pathlib

from absl import flags

from meta_impala import command
from meta_impala.analysis import curves
from meta_impala.errors import UserError
from meta_impala.storage.run_folder import RunFolder
from meta_impala.system.user_path import define_path, user_path

FLAGS = flags.FLAGS

POSITIONAL = "RUN ..."


def define_flags() -> None:
    """The flags of this command."""
    define_path("out", None, "PNG to write. Default: curves.png.")
    flags.DEFINE_list("labels", None, "One label per run; default: the folders' names.")
    flags.DEFINE_list("levels", [], "Returns; prints the frames at which each is passed.")


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    folders = [RunFolder(user_path(path)) for path in arguments]
    labels = FLAGS.labels or [folder.path.name for folder in folders]
    levels = _levels()
    out = pathlib.Path(FLAGS.out or user_path("curves.png"))
    if not folders:
        raise UserError("give at least one run folder")
    if len(labels) != len(folders):
        raise UserError(f"--labels: {len(labels)} labels for {len(folders)} runs")
    for folder, label in zip(folders, labels, strict=True):
        curve = curves.read_curve(folder, "episode_return")
        print(f"{label}: {curve.values[-1]:.2f} after {curve.frames[-1]:,} frames")
        for level in levels:
            frames = curves.first_passing(curve, level)
            print(f"  passes {level:g}: {'never' if frames is None else f'{frames:,} frames'}")
    curves.plot(folders, labels, out)
    print(f"wrote {out}")
    return 0


def _levels() -> list[float]:
    try:
        return list(map(float, FLAGS.levels))
    except ValueError:
        raise UserError(f"--levels={','.join(FLAGS.levels)}: must be numbers") from None


if __name__ == "__main__":
    define_flags()
    command.run(main, POSITIONAL)
