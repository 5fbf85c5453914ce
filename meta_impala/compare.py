"""Compares evaluated runs with the published scores: tables, statistics, pictures.

    meta-impala compare --out=comparison runs/pong runs/breakout
    meta-impala compare testdata/demonstration/runs

Runs are also found below the folders that are given. `meta-impala evaluate RUN` evaluates a
run. Runs that differ in more than game and seed are variants.
"""

from __future__ import annotations

import pathlib

from absl import flags, logging

from meta_impala import command
from meta_impala.analysis import comparison_report, results, run_folders
from meta_impala.errors import UserError
from meta_impala.published import tables as published
from meta_impala.storage import results_folder
from meta_impala.system.user_path import define_path, user_path

FLAGS = flags.FLAGS

POSITIONAL = "RUN ..."


def define_flags() -> None:
    """The flags of this command."""
    define_path("out", None, "Folder for report.md, CSV files and pictures. Default: comparison.")
    flags.DEFINE_string(
        "baseline",
        None,
        "Of the relative improvement per game: a published column, or the label of a variant. "
        "Default: IMPALA's deep experts, or what comes nearest with the same starts.",
    )
    flags.DEFINE_enum(
        "starts", "noop", ["noop", "human"], "Which evaluations of the runs are compared."
    )
    define_path("published", None, "Folder of published tables, in place of those of the package.")
    flags.DEFINE_bool("pictures", True, "Draw PNG files.")


def main(arguments: list[str]) -> int:
    """Runs the command; returns its exit code."""
    logging.set_verbosity(logging.WARNING)  # rliable reports each estimate
    if not arguments:
        raise UserError("give at least one run folder, or a folder above runs")
    out = pathlib.Path(FLAGS.out or user_path("comparison"))
    results_folder.check_outdir(str(out), "out")
    folders = run_folders.find([str(user_path(path)) for path in arguments])
    text = comparison_report.make(
        results.read(folders, starts=FLAGS.starts),
        out,
        FLAGS.baseline,
        "Comparison with published scores",
        tables=pathlib.Path(FLAGS.published) if FLAGS.published else published.FOLDER,
        pictures=FLAGS.pictures,
    )
    command.say(text)
    command.say(f"written to {out}")
    return 0


if __name__ == "__main__":
    define_flags()
    command.run(main, POSITIONAL)
