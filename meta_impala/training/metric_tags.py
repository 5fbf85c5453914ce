"""Names of metrics in TensorBoard and Weights & Biases: columns in groups that sort by interest.

Both show one section per group, in the order of the names, and TensorBoard opens the first two. So
return, γ and λ are seen first. The part after the slash is the column's name in `metrics.csv`.

Versions before 0.2 wrote the columns without a group: a run of theirs that is continued has its
older rows under the old names. `metrics.csv` and `meta-impala report` have them in one.
"""

from __future__ import annotations

from meta_impala.config.metric_columns import row_and_head

LEARNING, META_GRADIENT, OTHER_HEADS = "1_learning", "2_meta_gradient", "7_other_heads"

_GROUPS = {
    LEARNING: ("episode_return", "gamma", "lambda"),
    META_GRADIENT: ("meta_gradient_norm", "meta_loss"),
    "3_losses": ("inner_loss", "policy_loss", "value_loss", "entropy"),
    "4_optimisation": (
        "gradient_norm",
        "clip_coefficient",
        "rho_clipped_share",
        "policy_lag",
        "learning_rate",
        "bad_updates",
    ),
    "5_games": ("episodes", "episode_frames"),
    "6_machine": (
        "updates",
        "seconds",
        "frames_per_second",
        "queue_fill",
        "actor_restarts",
        "rss_mib",
        "cpu_seconds",
    ),
}
_GROUP_OF = {column: group for group, columns in _GROUPS.items() for column in columns}


def tag(column: str) -> str:
    """The name of a column of `metrics.csv`, such as `1_learning/gamma`.

    A column of an auxiliary head has a group of its own. Another one in no group is the value of a
    meta-parameter, its meta-gradient or its step.
    """
    if row_and_head(column)[1] > 1:
        return f"{OTHER_HEADS}/{column}"
    of_meta_gradient = column.startswith(("meta_gradient_", "x_step_"))
    other = META_GRADIENT if of_meta_gradient else LEARNING
    return f"{_GROUP_OF.get(column, other)}/{column}"
