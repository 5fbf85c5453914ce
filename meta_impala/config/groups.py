"""Under which title each setting stands in the full help: where a group begins."""

from __future__ import annotations

from meta_impala.config.schema import FIELDS

# The first setting of each group, in the order of `Config`.
_FIRST = {
    "environment": "The run",
    "meta_parameters": "What is learned of η, and how",
    "meta_policy_cost": "The meta objective",
    "unroll_length": "The inner objective and its optimiser",
    "network": "The network",
    "actors": "Actors and queue",
    "checkpoint_minutes": "Records",
}


def _groups() -> dict[str, str]:
    title, found = "", {}
    for name in FIELDS:
        title = _FIRST.get(name, title)
        found[name] = title
    return found


# By flag name.
GROUPS = _groups()
