"""Under which title each setting stands in the full help."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from meta_impala.config.schema import Config, flag_name

# A group without a title of its own stands under that of the group before it.
_TITLES = {
    "RunSettings": "The run",
    "MetaParameterSettings": "Meta-parameters η",
    "MetaBatchSettings": "The meta-gradient",
    "MetaLossSettings": "The meta objective J'",
    "BatchSettings": "The inner objective J",
    "OptimizerSettings": "The optimiser of θ",
    "NetworkSettings": "The network",
    "ActorSettings": "Actors and queue",
    "LearnerSettings": "The learner",
    "RecordSettings": "Records",
}


def _of_one_dataclass() -> Iterable[tuple[type, dataclasses.Field]]:
    """Each setting and the dataclass that declares it, in the order of `Config`."""
    declaring = {}
    for kind in reversed(Config.__mro__):
        for name in getattr(kind, "__annotations__", {}):
            declaring[name] = kind
    for field in dataclasses.fields(Config):
        yield declaring[field.name], field


def _groups() -> dict[str, str]:
    title, found = "", {}
    for kind, field in _of_one_dataclass():
        title = _TITLES.get(kind.__name__, title)
        found[flag_name(field)] = title
    return found


# By flag name.
GROUPS = _groups()
