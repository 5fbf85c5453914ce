"""Makes the source of blocks that the settings ask for, with its actors started."""

from __future__ import annotations

from meta_impala.actors.actor import Actor, actor_seed
from meta_impala.actors.restarts import Restarts
from meta_impala.actors.source import BlockSource
from meta_impala.actors.startup import ActorStart, make_actor
from meta_impala.actors.threaded import ThreadedSource
from meta_impala.actors.turn_taking import TurnTakingSource
from meta_impala.agent.policy import Policy
from meta_impala.config import Config
from meta_impala.environments import Description
from meta_impala.learner.group import LearnerGroup
from meta_impala.networks.actor_critic import ActorCritic
from meta_impala.system.signals import StopRequest
from meta_impala.system.timing import RunStopwatches


class SourceMaker:
    """Makes the sources of a run: one at its start, and one at every barrier of a deterministic
    run."""

    def __init__(
        self,
        config: Config,
        description: Description,
        network: ActorCritic,
        restarts: Restarts,
        stop: StopRequest,
        group: LearnerGroup,
        stopwatches: RunStopwatches | None,
    ) -> None:
        """Builds the policy: call it before the first thread starts.

        Args:
          config: resolved.
          description: of the environment.
          network: whose variables are not used.
          restarts: of the run's actors.
          stop: set when the wait for a block is to end.
          group: the learners of the run.
          stopwatches: time the actors; None for no timing.
        """
        self._config = config
        self._description = description
        self._restarts = restarts
        self._stop = stop
        self._first_actor = group.index * config.num_actors
        self._stopwatches = stopwatches
        self._core_state_size = network.settings.core_state_size
        self._policy = Policy(network, config, description, config.envs_per_actor)

    def make(self, updates: int, starting: ActorStart) -> BlockSource:
        """A source with new environments, seeded by (seed, updates).

        Args:
          updates: of the learner.
          starting: makes and starts the actors.

        Raises:
          Exception: what an environment raised, or what `starting` was failed with.
        """
        config, share = self._config, self._config.share
        if config.actors == "ray":
            from meta_impala.distributed.ray_source import RaySource

            return RaySource(
                share,
                self._description,
                self._stop,
                self._restarts,
                first_actor=self._first_actor,
            )

        def start(actor: Actor) -> None:
            seed = actor_seed(config.seed, updates, actor.index, config.envs_per_actor)
            actor.reset(seed, self._core_state_size)

        actors = starting.actors(config.num_actors, self._make_actor, start)
        if config.deterministic:
            return TurnTakingSource(actors, config, self._stop, self._restarts)
        stopwatches = self._stopwatches.actors if self._stopwatches else ()
        return ThreadedSource(actors, share, self._stop, self._restarts, stopwatches)

    def _make_actor(self, index: int) -> Actor:
        return make_actor(
            self._first_actor + index,
            self._config,
            self._policy,
            keep_actions=self._config.deterministic,
            stopwatch=self._stopwatches.of_actor() if self._stopwatches else None,
        )
