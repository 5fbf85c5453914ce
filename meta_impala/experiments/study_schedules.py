"""The files of γ and λ that runs of the study replay, and the rows that they are made from."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from meta_impala.experiments.suite import Run
from meta_impala.storage.files import write_atomically
from meta_impala.storage.metrics_table import header_line, line_of, read_metrics


def rows_of_eta(metrics: pathlib.Path) -> list[dict[str, str]]:
    """The rows of a run's `metrics.csv` that have γ and λ; none if there is no such file."""
    return [row for row in read_metrics(metrics) if row.get("gamma") and row.get("lambda")]


def write(run: Run, donor: Run | None) -> None:
    """Writes the file that a run of R, or of S with its donor, replays, unless it is there.

    As long as a run of S has not begun it is written again: a donor that had failed may have been
    trained again since.

    Args:
      run: of R or S.
      donor: the A-γλ run whose values a run of S has; None for R.
    """
    path = pathlib.Path(run.config.eta_schedule_file)
    if path.exists() and (donor is None or run.folder.has_run()):
        return
    if donor is None:
        content = _schedule([(0, 0.0, 1.0), (run.config.total_frames // 2, 0.99, 1.0)])
    else:
        content = _shuffled(donor.folder.metrics_path, run.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)


def _schedule(rows: Sequence[tuple[int, float, float]]) -> str:
    """A file for `--eta_schedule_file`: (frames, γ, λ), each from its frames on."""
    lines = (
        line_of({"frames": str(frames), "gamma": f"{gamma:.8g}", "lambda": f"{lambda_:.8g}"})
        for frames, gamma, lambda_ in rows
    )
    return header_line() + "".join(lines)


def _shuffled(metrics: pathlib.Path, seed: int) -> str:
    """The γ and λ of a run with its rows in random order: the same values, another time course."""
    rows = rows_of_eta(metrics)
    order = np.random.default_rng(seed).permutation(len(rows))
    frames = [0, *(int(row["frames"]) for row in rows[:-1])]
    values = [(float(rows[i]["gamma"]), float(rows[i]["lambda"])) for i in order]
    return _schedule([(at, *value) for at, value in zip(frames, values, strict=True)])
