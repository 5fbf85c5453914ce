"""All settings of a run: `Config`, composed of the groups that own them.

The commands make their flags from `Config`, and a run folder saves it as `config.json`. A component
takes its group (`config.part(RunSettings)`, or one of `composed_settings.py`), not the whole.
Nothing here imports TensorFlow, so that a mistake is reported at once.
"""

from __future__ import annotations

import dataclasses
import typing
from typing import Any, TypeVar

from meta_impala.config.actor_settings import ActorSettings
from meta_impala.config.eta_settings import EtaSettings
from meta_impala.config.evaluation_settings import EvaluationSettings
from meta_impala.config.learner_settings import LearnerSettings
from meta_impala.config.loss_settings import (
    BatchSettings,
    CostSettings,
    RewardSettings,
    VTraceSettings,
)
from meta_impala.config.meta_gradient_settings import (
    EtaEmbeddingSettings,
    MetaBatchSettings,
    MetaGradientSettings,
    MetaOptimizerSettings,
)
from meta_impala.config.meta_loss_settings import (
    MetaAdvantageSettings,
    MetaLossSettings,
    MetaObjectiveSettings,
)
from meta_impala.config.network_settings import NetworkSettings
from meta_impala.config.optimizer_settings import OptimizerSettings
from meta_impala.config.record_settings import RecordSettings
from meta_impala.config.run_settings import RunSettings

Group = TypeVar("Group")


# A dataclass takes the fields of its bases from the last to the first, so the last group is the
# first in `config.json`.
@dataclasses.dataclass(frozen=True)
class Config(
    EvaluationSettings,
    RecordSettings,
    LearnerSettings,
    ActorSettings,
    NetworkSettings,
    VTraceSettings,
    RewardSettings,
    CostSettings,
    OptimizerSettings,
    BatchSettings,
    MetaAdvantageSettings,
    MetaObjectiveSettings,
    MetaLossSettings,
    MetaGradientSettings,
    EtaEmbeddingSettings,
    MetaOptimizerSettings,
    MetaBatchSettings,
    EtaSettings,
    RunSettings,
):
    """All settings of a run. `None` means "derived from the others" until `resolve` is called."""

    def part(self, group: type[Group]) -> Group:
        """The settings of one group.

        Args:
          group: a dataclass whose fields are settings, such as `AgentSettings`.

        Returns:
          An instance of it.
        """
        names = [field.name for field in dataclasses.fields(group)]  # type: ignore[arg-type]
        return group(**{name: getattr(self, name) for name in names})

    @property
    def share(self) -> Config:
        """The settings of one learner's part of a batch: B/N and B'/N columns."""
        return dataclasses.replace(
            self,
            batch_size=self.batch_size // self.num_learners,
            meta_batch_size=self.meta_batch_size // self.num_learners,
            learner_addresses="",
            learner_index=0,
        )

    @property
    def embedding_place_matters(self) -> bool:
        """Whether `eta_embedding_place` changes the network: inputs join it, and not at a core."""
        return self.core == "none" and bool(self.eta_embedding_size or self.last_action_and_reward)

    @property
    def block_size(self) -> int:
        """Unrolls in one block of the trajectory queue."""
        return min(self.envs_per_actor, self.batch_size // self.num_learners)


def flag_name(field: dataclasses.Field[Any]) -> str:
    """The name of a setting on the command line and in `config.json` (`lambda`, not `lambda_`)."""
    return field.metadata["flag"] or field.name


FIELDS: dict[str, dataclasses.Field[Any]] = {
    flag_name(field): field for field in dataclasses.fields(Config)
}

_TYPES = typing.get_type_hints(Config)


def field_type(field: dataclasses.Field[Any]) -> tuple[type, bool]:
    """The plain type of a setting, and whether it may be None ("derived from the others")."""
    declared = _TYPES[field.name]
    if field.metadata["auto"]:
        return declared, True
    arguments = [kind for kind in typing.get_args(declared) if kind is not type(None)]
    return (arguments[0], True) if arguments else (declared, False)
