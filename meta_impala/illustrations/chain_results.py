"""The results of an example: the table on the screen, the CSV files, and the verdict.

The verdict is the claim of the paper as a number, averaged over seeds. discount: the gap between
the lowest γ of a signal state (after the first, whose γ does nothing) and the highest of a noise
state. bootstrap: the lowest λ of an aliased state, and by how much it is above every bottleneck's.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from meta_impala.illustrations import settings as settings_lib
from meta_impala.illustrations.chains import ALIASED, BOTTLENECK, NOISE, SIGNAL, make
from meta_impala.illustrations.settings import DISCOUNT, Settings
from meta_impala.storage.results_folder import write_text

# A "clear" result, as printed and as tested.
CLEAR_GAP = {"discount": 0.3, "bootstrap": 0.2}
CLEAR_ALIASED = 0.9

# The band around the mean of a curve, in percent of the seeds.
BAND = (20, 80)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether the paper's claim holds, as numbers.

    Attributes:
      gap: the lowest of the states that should be high minus the highest of those that should be
        low; NaN if the process has none of either.
      lowest_high: the lowest of the states that should be high, NaN likewise.
      reproduced: whether both are as large as in `CLEAR_GAP` and `CLEAR_ALIASED`.
    """

    gap: float
    lowest_high: float
    reproduced: bool


def verdict(example: str | None, kinds: Sequence[str], final: np.ndarray) -> Verdict:
    """The verdict on final γ(s) or λ(s), `[T, seeds]`."""
    means = final.mean(axis=-1)
    # Nothing arrives in the first state, so its γ or λ is never used.
    used = np.arange(len(kinds)) > 0
    is_high = np.isin(kinds, [SIGNAL, ALIASED]) & used
    is_low = np.isin(kinds, [NOISE, BOTTLENECK]) & (used | (np.array(kinds) == BOTTLENECK))
    if not is_high.any() or not is_low.any():
        return Verdict(float("nan"), float("nan"), False)
    lowest_high = float(means[is_high].min())
    gap = lowest_high - float(means[is_low].max())
    reproduced = gap >= CLEAR_GAP[str(example)]
    if example != DISCOUNT:
        reproduced = reproduced and lowest_high >= CLEAR_ALIASED
    return Verdict(gap, lowest_high, reproduced)


def summary(settings: Settings, final: np.ndarray, values: np.ndarray) -> str:
    """The table: a line per state, then the verdict.

    Args:
      settings: of the run.
      final: γ(s) or λ(s) after the last episode, `[T, seeds]`.
      values: v(s) after the last episode, `[T, seeds]`.
    """
    process = make(settings)
    symbol = "γ" if settings.learned == "gamma" else "λ"
    low, high = np.percentile(final, BAND, axis=-1)
    header = f"{'state':>5}  {'kind':<10}  {'start':>6}  {symbol + ' mean':>7}  "
    header += f"{'20 %':>6}  {'80 %':>6}  {'v mean':>7}  {'true v':>7}"
    lines = [header]
    true_values = process.true_values(settings.reference_gamma)
    for state, kind in enumerate(process.kinds):
        lines.append(
            f"{state + 1:>5}  {kind:<10}  {settings.start:>6.3f}  {final[state].mean():>7.3f}  "
            f"{low[state]:>6.3f}  {high[state]:>6.3f}  {values[state].mean():>7.3f}  "
            f"{true_values[state]:>7.3f}"
        )
    return "\n".join([*lines, "", _verdict_line(settings, process.kinds, final)])


def _verdict_line(settings: Settings, kinds: Sequence[str], final: np.ndarray) -> str:
    found = verdict(settings.example, kinds, final)
    if np.isnan(found.gap):
        return "verdict: too few states to tell the two kinds apart"
    outcome = "reproduced" if found.reproduced else "not reproduced"
    if settings.example == DISCOUNT:
        return (
            f"{outcome}: the lowest γ of a signal state after the first is {found.lowest_high:.3f},"
            f" {found.gap:+.3f} from the highest of a noise state (clear: "
            f"{CLEAR_GAP[DISCOUNT]} or more)"
        )
    return (
        f"{outcome}: the lowest λ of an aliased state is {found.lowest_high:.3f} (clear: "
        f"{CLEAR_ALIASED} or more), {found.gap:+.3f} from the highest of a bottleneck (clear: "
        f"{CLEAR_GAP['bootstrap']} or more)"
    )


def write_csv(path: pathlib.Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a CSV file as a whole; numbers with six significant digits.

    Raises:
      UserError: if it cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        writer.writerow([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row])
    write_text(path, text.getvalue())


def write_final_values(path: pathlib.Path, settings: Settings, final: np.ndarray) -> None:
    """`final_values.csv`: state, kind, seed, value; final is `[T, seeds]`."""
    kinds = make(settings).kinds
    rows = (
        (state + 1, kind, settings.first_seed + seed, float(final[state, seed]))
        for state, kind in enumerate(kinds)
        for seed in range(settings.seeds)
    )
    write_csv(path, ("state", "kind", "seed", "value"), rows)


def write_curves(
    path: pathlib.Path,
    settings: Settings,
    episodes: np.ndarray,
    eta: np.ndarray,
    values: np.ndarray,
) -> None:
    """`curves.csv`: γ(s) or λ(s) (`value`) and v(s) (`v`) at every point, state and seed.

    Args:
      path: of the file.
      settings: of the run.
      episodes: `[P+1]`.
      eta: `[P+1, T, seeds]`.
      values: `[P+1, T, seeds]`.
    """
    kinds = make(settings).kinds
    rows = (
        (
            int(episode),
            state + 1,
            kind,
            settings.first_seed + seed,
            float(eta[point, state, seed]),
            float(values[point, state, seed]),
        )
        for point, episode in enumerate(episodes)
        for state, kind in enumerate(kinds)
        for seed in range(settings.seeds)
    )
    write_csv(path, ("episode", "state", "kind", "seed", "value", "v"), rows)


def write_settings(path: pathlib.Path, settings: Settings) -> None:
    """`settings.json`: every switch, by its flag's name."""
    values = {name: getattr(settings, field.name) for name, field in settings_lib.FIELDS.items()}
    write_text(path, json.dumps(values, indent=2) + "\n")
