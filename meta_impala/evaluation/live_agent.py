"""The agent that is watched: of a run's newest checkpoint, which training may replace meanwhile."""

from __future__ import annotations

import pathlib

from meta_impala.config import AgentSettings, Config
from meta_impala.environments import Description
from meta_impala.errors import UserError, warn
from meta_impala.storage.checkpoint import identity_of, restore_for_evaluation
from meta_impala.storage.manifest import newest_version
from meta_impala.storage.trained_agent import TrainedAgent, load_learner


class NewestAgent:
    """The agent of the newest checkpoint of a folder, read again when there is a newer one.

    Attributes:
      agent: as of the last `refresh`.
    """

    def __init__(self, checkpoints: pathlib.Path, config: Config, description: Description) -> None:
        """Args:
        checkpoints: folder of the checkpoints; nothing in it is touched.
        config: of the run, resolved, network included.
        description: of its environment.

        Raises:
          UserError: as `load_learner`.
        """
        self._folder = checkpoints
        self._newest = newest_version(checkpoints)
        self._learner, name = load_learner(checkpoints, config, description)
        self._identity = identity_of(config.part(AgentSettings), description, self._learner.state)
        self.agent = self._agent(name)

    def _agent(self, checkpoint: str) -> TrainedAgent:
        state = self._learner.state
        return TrainedAgent(
            network=state.network,
            snapshot=self._learner.snapshot(),
            frames=int(state.frames.numpy()),
            checkpoint=checkpoint,
        )

    def refresh(self) -> bool:
        """Reads the newest checkpoint if it is another one; whether it was.

        One that cannot be read leaves the agent as it is, with a warning.
        """
        newest = newest_version(self._folder)
        if newest is None or newest == self._newest:
            return False
        try:
            path = restore_for_evaluation(self._folder, self._learner.state, self._identity)
        except UserError as error:
            warn(f"warning: {self.agent.checkpoint} continues to play: {error}")
            return False
        before, self.agent, self._newest = self.agent, self._agent(path.name), newest
        return _updates(before) != _updates(self.agent)


def _updates(agent: TrainedAgent) -> tuple[int, int]:
    """Frames and updates: with `sample_reuse` more updates may be of the same frames."""
    return agent.frames, agent.snapshot.version
