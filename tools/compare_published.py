"""Compares evaluated runs with the published scores: tables, statistics, pictures.

python tools/compare_published.py --out=comparison runs/pong runs/breakout

A run is evaluated with `python -m meta_impala.evaluate --logdir=RUN`. Runs that differ in more than
game and seed are told apart as variants.
"""

from __future__ import annotations

import pathlib
import sys

from absl import app, flags, logging

from meta_impala.analysis import published, report, results
from meta_impala.errors import UserError
from meta_impala.storage.run_folder import RunFolder

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
    "published", str(published.FOLDER), "Folder of the published tables."
)
_PICTURES = flags.DEFINE_bool("pictures", True, "Draw PNG files (needs matplotlib).")


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    logging.set_verbosity(logging.WARNING)  # rliable reports each estimate
    out = pathlib.Path(_OUT.value).expanduser()
    try:
        if len(arguments) < 2:
            raise UserError("give at least one run folder")
        found = results.read(map(RunFolder, arguments[1:]), starts=_STARTS.value)
        text = report.make(
            found,
            out,
            _BASELINE.value,
            "Comparison with published scores",
            tables=pathlib.Path(_PUBLISHED.value),
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
