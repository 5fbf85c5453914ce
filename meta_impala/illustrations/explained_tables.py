"""The numbers of the explanations as CSV files, one per experiment (see `explanations`)."""

from __future__ import annotations

import pathlib

from meta_impala.illustrations import chain_experiments as experiments
from meta_impala.illustrations import chain_results as results
from meta_impala.illustrations.chains import make
from meta_impala.illustrations.explanations import Evidence, with_other_last_reward
from meta_impala.illustrations.settings import Settings


def write(outdir: pathlib.Path, settings: Settings, evidence: Evidence) -> None:
    """Writes the `explained_*.csv` files of one example."""
    kinds = make(settings).kinds
    sweep_rows = [
        (float(step_size), state + 1, kind, settings.first_seed + seed, float(final[state, seed]))
        for step_size, final in zip(evidence.sweep.step_sizes, evidence.sweep.eta, strict=True)
        for state, kind in enumerate(kinds)
        for seed in range(settings.seeds)
    ]
    header = ("inner_step_size", "state", "kind", "seed", "value")
    results.write_csv(outdir / "explained_step_size.csv", header, sweep_rows)

    indexing_rows = [
        (length, name, state + 1, settings.first_seed + seed, float(final[state, seed]))
        for length, run in evidence.indexing.items()
        for name, final in run._asdict().items()
        for state in range(length)
        for seed in range(settings.seeds)
    ]
    header = ("num_states", "indexing", "state", "seed", "value")
    results.write_csv(outdir / "explained_indexing.csv", header, indexing_rows)

    target_rows = [
        (name, state + 1, kind, float(found.mean[state]), float(found.variance[state]))
        for name, found in evidence.targets.items()
        for state, kind in enumerate(kinds)
    ]
    header = ("target", "state", "kind", "mean", "variance")
    results.write_csv(outdir / "explained_targets.csv", header, target_rows)
    results.write_csv(
        outdir / "explained_errors.csv",
        ("last_reward", "inner_step_size", "eta", "gamma", "lambda", "rmse"),
        _error_rows(settings, evidence),
    )
    results.write_csv(
        outdir / "explained_speed.csv",
        ("episode", "eta", "rmse"),
        (
            (episode, name, float(error))
            for name, curve in evidence.speed.errors.items()
            for episode, error in enumerate(curve)
        ),
    )


def _error_rows(settings: Settings, evidence: Evidence) -> list[tuple]:
    rows: list[tuple] = []
    sweeps = [(settings.last_reward, evidence.sweep)]
    if evidence.other_sweep is not None:
        sweeps.append((with_other_last_reward(settings).last_reward, evidence.other_sweep))
    for last_reward, sweep in sweeps:
        for row, step_size in enumerate(map(float, sweep.step_sizes)):
            for name in sweep.squared_errors:
                gamma, lambda_ = sweep.pairs[name][row] if name in sweep.pairs else ("", "")
                cells = (last_reward, step_size, name, gamma, lambda_)
                rows.append((*cells, float(sweep.error(name)[row])))
            rows += [
                (last_reward, step_size, "grid", float(g), float(h), float(sweep.grid[row, i, j]))
                for i, g in enumerate(experiments.GRID)
                for j, h in enumerate(experiments.GRID)
            ]
    return rows
