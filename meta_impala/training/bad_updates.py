"""Updates that were not applied because something was not finite: their statistics and batches."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np

from meta_impala.actors.trajectory import Unroll
from meta_impala.errors import one_line, warn
from meta_impala.learner.state import Statistics
from meta_impala.storage.arrays import write_arrays
from meta_impala.storage.files import make_folder

# The first ones say what went wrong; the later ones that it still does.
MAX_FILES = 5
# NaN also where nothing is learned.
_SHOWN = ("inner_loss", "gradient_norm", "meta_loss", "meta_gradient_norm")


def describe(statistics: Statistics, batches: Mapping[str, Unroll]) -> str:
    """Which inputs are not finite or, if all are finite, which results."""
    inputs = [
        f"{field} of the {name}"
        for name, batch in batches.items()
        for field, array in batch._asdict().items()
        if not np.isfinite(np.asarray(array)).all()
    ]
    if inputs:
        return ", ".join(inputs)
    return ", ".join(f"{name} {getattr(statistics, name):g}" for name in _SHOWN)


def keep(
    folder: pathlib.Path, updates: int, statistics: Statistics, batches: Mapping[str, Unroll]
) -> pathlib.Path | None:
    """Writes `update-N.npz`: "statistics NAME" and "BATCH FIELD", as `read_arrays` reads them.

    Returns:
      Its path; None if there are enough, or it could not be written.
    """
    path = folder / f"update-{updates}.npz"
    arrays = {f"statistics {name}": np.array(v) for name, v in statistics.numbers().items()}
    for name, batch in batches.items():
        arrays |= {f"{name} {field}": np.asarray(a) for field, a in batch._asdict().items()}
    try:
        make_folder(folder)
        if len(list(folder.iterdir())) >= MAX_FILES:
            return None
        write_arrays(path, arrays)
    except OSError as error:
        warn(f"warning: {path}: cannot be written ({one_line(error)})")
        return None
    return path
