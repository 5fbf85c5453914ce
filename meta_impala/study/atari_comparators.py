"""Part 3 beside what others published: A2C and PPO after four times its frames, and Atari-N."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from meta_impala.evaluation import scores
from meta_impala.published import atari_n, tables
from meta_impala.study import design
from meta_impala.study.blocks import Block, Table, Text, number
from meta_impala.study.summary import Task

_COMPARATORS = ("slmlab_a2c_10m_steps", "slmlab_ppo_10m_steps")


def random_scores() -> dict[str, float]:
    """The published score of random actions in the games of part 3."""
    constants = scores.human_random()
    return {game: constants[game].random for game in design.ATARI.tasks}


def comparators(part: Sequence[Task]) -> list[Block]:
    """Scores of part 3 beside the published ones, each with its mark.

    Args:
      part: the tasks of part 3.
    """
    columns = [tables.read_columns()[name] for name in _COMPARATORS]
    arms = list(part[0].arms)
    constants = scores.human_random()
    rows = [
        [
            task.name,
            number(constants[task.name].random, 1),
            number(constants[task.name].human, 1),
            *(_last_scores(task, arm) for arm in arms),
            *(f"{number(column.by_game.get(task.name), 0)} (f)" for column in columns),
        ]
        for task in part
    ]
    return [
        Text(
            "The last evaluation of each run (mean over seeds), and two published agents. (f): "
            "trained for 10M agent steps, about 40M frames, four times those of part 3; sticky "
            "actions, the moving average of training returns, and of PPO the best of three λ for "
            "each game (`published/slmlab_a2c_ppo.csv`). They are no controls of this study."
        ),
        Table(["game", "random", "human", *arms, *(column.agent for column in columns)], rows),
        *_atari_n(columns),
    ]


def _last_scores(task: Task, arm: str) -> str:
    ends = [record.points[-1].mean_return for record in task.arms[arm].records.values()
            if record.points]  # fmt: skip
    runs = "1 run" if len(ends) == 1 else f"{len(ends)} runs"
    return f"{number(statistics.fmean(ends), 1)} ({runs})" if ends else number(None)


def _atari_n(columns: Sequence[tables.Column]) -> list[Block]:
    """Why part 3 has no estimate of the median over 57 games, shown by the comparators'."""
    subsets = [name for name in atari_n.subsets() if "validation" not in name]
    frames = max(column.frames or 0 for column in columns)
    rows = []
    for column in columns:
        normalised = column.human_normalised()
        found = {one.subset: one for one in atari_n.estimates(column.agent, normalised)}
        median = tables.median_percent(column)
        cells = [
            f"{number(found[name].median_percent, 1)}"
            + ("" if found[name].is_in_range else " (below the range)")
            if name in found
            else number(None)
            for name in subsets
        ]
        rows.append([column.agent, *cells, f"{number(median, 1)} ({len(normalised)} games)"])
    return [
        Text(
            "Atari-N estimates the median over 57 games from a few of them "
            "(`published/atari_n.csv`, with its formula). It was fitted at "
            f"{atari_n.FRAMES // 10**6}M frames and to medians above "
            f"{atari_n.LOWEST_MEDIAN_PERCENT:.0f} %; part 3 has neither its games nor its frames, "
            f"so no estimate is given for it. After {frames // 10**6}M frames it is already far "
            "off: human-normalised percent of the two published agents."
        ),
        Table(["agent", *subsets, "true median of its games"], rows),
    ]
