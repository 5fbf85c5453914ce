"""Compares evaluated runs with the published scores: tables, statistics, pictures.

python tools/compare_published.py --out=comparison runs/pong runs/breakout
python tools/compare_published.py testdata/demonstration/runs

Runs are also found below the folders that are given. `python -m meta_impala.evaluate --logdir=RUN`
evaluates a run. Runs that differ in more than game and seed are variants.
"""

from __future__ import annotations

import os
import pathlib
import sys

from absl import app, flags, logging

from meta_impala.analysis import comparison_report, results, run_folders
from meta_impala.errors import UserError
from meta_impala.published import tables as published

_OUT = flags.DEFINE_string("out", "comparison", "Folder for report.md, CSV files and pictures.")
_BASELINE = flags.DEFINE_string(
    "baseline",
    None,
    "Of the relative improvement per game: a published column, or the label of a variant. Default: "
    "IMPALA's deep experts, or what comes nearest with the same starts.",
)
_STARTS = flags.DEFINE_enum(
    "starts", "noop", ["noop", "human"], "Which evaluations of the runs are compared."
)
_PUBLISHED = flags.DEFINE_string(
    "published", None, "Folder of published tables, in place of those of the package."
)
_PICTURES = flags.DEFINE_bool("pictures", True, "Draw PNG files (needs matplotlib).")


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    logging.set_verbosity(logging.WARNING)  # rliable reports each estimate
    out = pathlib.Path(os.path.expanduser(_OUT.value))
    try:
        if len(arguments) < 2:
            raise UserError("give at least one run folder, or a folder above runs")
        found = results.read(run_folders.find(arguments[1:]), starts=_STARTS.value)
        text = comparison_report.make(
            found,
            out,
            _BASELINE.value,
            "Comparison with published scores",
            tables=pathlib.Path(_PUBLISHED.value) if _PUBLISHED.value else published.FOLDER,
            pictures=_PICTURES.value,
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(text)
    print(f"written to {out}")
    return 0


if __name__ == "__main__":
    app.run(main)
