"""Makes the source of blocks of the settings, with its actors started."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from meta_impala.actors.actor import Actor
from meta_impala.actors.late_actors import LateActors
from meta_impala.actors.making import EarlyEnvironment, actor_seed, make_environment
from meta_impala.actors.restarts import Restarts
from meta_impala.actors.source import BlockSource
from meta_impala.actors.startup import ActorStart, make_actor
from meta_impala.actors.threaded import ThreadedSource
from meta_impala.actors.turn_taking import TurnTakingSource, fits
from meta_impala.agent.policy import Policy
from meta_impala.config import (
    ActingSettings,
    ActorSettings,
    AgentSettings,
    Config,
    RemoteActorSettings,
    RunSettings,
)
from meta_impala.environments import BatchedEnvironment, Description
from meta_impala.learner.group import LearnerGroup
from meta_impala.networks.actor_critic import ActorCritic
from meta_impala.system.signals import StopRequest
from meta_impala.system.timing import RunStopwatches


def restarts_of(config: Config, count: int) -> Restarts:
    """The restarts of a run's actors.

    Args:
      config: resolved.
      count: of those so far.
    """
    return Restarts(
        lambda: _make_environment(config), config.seed, config.max_actor_restarts, count
    )


def _make_environment(config: Config) -> BatchedEnvironment:
    return make_environment(config.part(RunSettings), config.part(ActorSettings))


class SourceMaker:
    """Makes the sources of a run: one at its start and, in a deterministic run, one at every
    checkpoint by frames."""

    def __init__(
        self,
        config: Config,
        description: Description,
        restarts: Restarts,
        stop: StopRequest,
        group: LearnerGroup,
        stopwatches: RunStopwatches | None,
        early: EarlyEnvironment | None = None,
    ) -> None:
        """Args:
        config: resolved.
        description: of the environment.
        restarts: of the run's actors.
        stop: set when the wait for a block is to end.
        group: the learners of the run.
        stopwatches: time the actors; None for no timing.
        early: the first actor's environments, if they are made. Then threads begin with this
          actor, and the others join after the first update.
        """
        self._config = config
        self._description = description
        self._restarts = restarts
        self._stop = stop
        self._first_actor = group.index * config.num_actors
        self._stopwatches = stopwatches
        self._early = early
        # From `build` on.
        self._core_state_size: int
        self._policy: Policy

    def build(self, network: ActorCritic) -> None:
        """Builds the graph of the policy. Call it before the first thread starts.

        Args:
          network: of the learner; its variables are not used.
        """
        config = self._config
        self._core_state_size = network.settings.core_state_size
        self._policy = Policy(
            network, config.part(AgentSettings), self._description, config.envs_per_actor
        )

    def make(self, updates: int, starting: ActorStart) -> BlockSource:
        """A source with new environments, seeded by (seed, updates).

        Args:
          updates: of the learner.
          starting: makes and starts the actors.

        Raises:
          Exception: what an environment raised, or what `starting` was failed with.
        """
        config, block_size = self._config, self._config.block_size
        if config.actors == "ray":
            from meta_impala.distributed.ray_source import RaySource

            return RaySource(
                config.part(RemoteActorSettings),
                block_size,
                self._description,
                self._stop,
                self._restarts,
                first_actor=self._first_actor,
            )

        def start(actor: Actor) -> None:
            seed = actor_seed(config.seed, updates, actor.index, config.envs_per_actor)
            actor.reset(seed, self._core_state_size)

        begins_early = self._early is not None and not config.deterministic
        count = 1 if begins_early else config.num_actors
        actors = starting.actors(range(count), self._make_actor, start)
        if config.deterministic:
            return TurnTakingSource(actors, block_size, self._stop, self._restarts)
        stopwatches = self._stopwatches.actors if self._stopwatches else ()
        settings = config.part(ActorSettings)
        late = None
        if count < config.num_actors:
            others = range(count, config.num_actors)
            late = LateActors(self._stop, others, self._make_actor, start)
        return ThreadedSource(
            actors, settings, block_size, self._stop, self._restarts, stopwatches, late
        )

    def fits(self, saved: Mapping[str, np.ndarray]) -> bool:
        """Whether a source can continue at this state, of a `TurnTakingSource`."""
        config = self._config
        return fits(saved, config.part(ActorSettings), config.unroll_length, config.block_size)

    def _make_actor(self, index: int) -> Actor:
        config = self._config
        environment = None
        if index == 0 and self._early is not None:
            environment, self._early = self._early.as_environment(), None
        return make_actor(
            self._first_actor + index,
            config.part(ActingSettings),
            self._policy,
            environment or _make_environment(config),
            keep_actions=config.deterministic,
            stopwatch=self._stopwatches.of_actor() if self._stopwatches else None,
        )
