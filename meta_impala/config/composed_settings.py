"""What a component takes that needs the settings of several groups: `Config.part` makes one.

`Config` is none of these, so that a type checker refuses it in their place.
"""

from __future__ import annotations

import dataclasses

from meta_impala.config.actor_settings import ActorSettings
from meta_impala.config.eta_settings import EtaSettings
from meta_impala.config.evaluation_settings import EvaluationSettings
from meta_impala.config.learner_settings import LearnerSettings
from meta_impala.config.loss_settings import BatchSettings, LossSettings, RewardSettings
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
from meta_impala.config.run_settings import RunSettings


@dataclasses.dataclass(frozen=True)
class TableSettings(LossSettings, OptimizerSettings, EtaSettings):
    """The hyper-parameters of J and U, and which of them are learned."""


@dataclasses.dataclass(frozen=True)
class AgentSettings(
    LearnerSettings,
    NetworkSettings,
    RewardSettings,
    MetaAdvantageSettings,
    EtaEmbeddingSettings,
    TableSettings,
    RunSettings,
):
    """What an agent that plays is made from: its environment, its network and its policy."""

    @property
    def second_value_head(self) -> bool:
        """Whether the network has a value head trained at η'."""
        return bool(self.varied) and self.meta_value_head == "reference"


@dataclasses.dataclass(frozen=True)
class ActingSettings(BatchSettings, TableSettings):
    """The unrolls of an actor: their length, and the η that each is played at."""


@dataclasses.dataclass(frozen=True)
class RemoteActorSettings(ActorSettings, ActingSettings, AgentSettings):
    """What the process of a Ray actor makes its agent and its unrolls from."""


@dataclasses.dataclass(frozen=True)
class PeriodicEvaluationSettings(EvaluationSettings, ActorSettings, AgentSettings):
    """The evaluations while a run trains, and the agent that plays them."""


@dataclasses.dataclass(frozen=True)
class MethodSettings(
    MetaLossSettings, MetaGradientSettings, MetaOptimizerSettings, TableSettings, RunSettings
):
    """What the objects of the method are made from: η, both optimisers, the weights of J'."""


@dataclasses.dataclass(frozen=True)
class UpdateSettings(
    LearnerSettings,
    RewardSettings,
    OptimizerSettings,
    BatchSettings,
    MetaAdvantageSettings,
    MetaObjectiveSettings,
    MetaGradientSettings,
    EtaEmbeddingSettings,
    MetaOptimizerSettings,
    MetaBatchSettings,
    RunSettings,
):
    """How an update is computed from these objects."""


@dataclasses.dataclass(frozen=True)
class BatcherSettings(BatchSettings, MetaObjectiveSettings, MetaBatchSettings, EtaSettings):
    """The size of a batch, and which batches are the meta batch of which."""
