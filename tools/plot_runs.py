"""Draws the learning curves of run folders: return, γ and λ against frames.

python tools/plot_runs.py --out=curves.png runs/pong runs/breakout
"""

from __future__ import annotations

import pathlib
import sys

from absl import app, flags

from meta_impala.analysis import curves
from meta_impala.errors import UserError
from meta_impala.storage.run_folder import RunFolder

_OUT = flags.DEFINE_string("out", "curves.png", "PNG to write.")
_LABELS = flags.DEFINE_list("labels", None, "One label per run; default: the folders' names.")
_LEVELS = flags.DEFINE_list("levels", [], "Returns; prints the frames at which each is passed.")


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    folders = [RunFolder(path) for path in arguments[1:]]
    labels = _LABELS.value or [folder.path.name for folder in folders]
    try:
        if not folders:
            raise UserError("give at least one run folder")
        if len(labels) != len(folders):
            raise UserError(f"--labels: {len(labels)} labels for {len(folders)} runs")
        for folder, label in zip(folders, labels, strict=True):
            curve = curves.read_curve(folder, "episode_return")
            print(f"{label}: {curve.values[-1]:.2f} after {curve.frames[-1]:,} frames")
            for level in map(float, _LEVELS.value):
                frames = curves.first_passing(curve, level)
                print(f"  passes {level:g}: {'never' if frames is None else f'{frames:,} frames'}")
        curves.plot(folders, labels, pathlib.Path(_OUT.value))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"wrote {_OUT.value}")
    return 0


if __name__ == "__main__":
    app.run(main)
