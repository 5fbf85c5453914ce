"""A trained agent for use in your own program: load it, let it act, evaluate it.

agent = meta_impala.load("runs/pong")        # or an exported file, or "pong"
action = agent.act(observation)
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from meta_impala.agent.policy import PolicyInputs
from meta_impala.config import AgentSettings, Config
from meta_impala.config.fields import MAX_SEED
from meta_impala.environments import BatchedEnvironment, Description
from meta_impala.errors import UserError
from meta_impala.evaluation import record
from meta_impala.evaluation.evaluator import Evaluation
from meta_impala.evaluation.games import (
    GamePolicy,
    eta_of_environments,
    evaluated_environment,
)
from meta_impala.storage import shipped_agents
from meta_impala.storage.folder_use import check_evaluation_file
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trained_agent import TrainedAgent, load_agent, load_agent_file
from meta_impala.storage.trained_run import open_agent_file, open_trained_run
from meta_impala.storage.trust import trusting
from meta_impala.system.user_path import user_path

_REMEDY = "give trust_modules=True if you trust this file"


def _checked_seed(seed: int) -> int:
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed is {seed}; must be from 0 to {MAX_SEED}")
    return seed


class Agent:
    """One agent that plays one episode at a time.

    Attributes:
      config: of its run.
      description: of its environment.
      trained: θ, η, frames and checkpoint.
    """

    def __init__(
        self, trained: TrainedAgent, config: Config, description: Description, seed: int = 0
    ) -> None:
        """Builds the policy of a loaded agent.

        Args:
          trained: as loaded.
          config: of its run, network included.
          description: of its environment.
          seed: of its actions, from 0 to 2³¹ − 1.

        Raises:
          ValueError: if the seed is out of range; `reset` and `evaluate` likewise.
        """
        self.trained, self.config, self.description = trained, config, description
        self._settings = config.part(AgentSettings)
        self._policy = GamePolicy(trained.network, self._settings, description, num_envs=1)
        self._eta = eta_of_environments(trained.snapshot, 1)
        self.reset(seed)

    def reset(self, seed: int | None = None) -> None:
        """Begins an episode: forgets the last action and the state of a recurrent core.

        Args:
          seed: of the actions from here on; as before if not given.
        """
        if seed is not None:
            self._seed, self._steps = _checked_seed(seed), 0
        size = self.trained.network.settings.core_state_size
        self._last_action = 0
        self._core_state = np.zeros([1, size], np.float32)

    def act(self, observation: np.ndarray, reward: float = 0.0) -> int:
        """Draws an action from the policy.

        Args:
          observation: one, without a batch axis, as the environment of `make_environment` gives it
            (for Atari the 84×84 planes of the last four steps).
          reward: that came with it; matters to networks with `last_action_and_reward` only.

        Raises:
          ValueError: if the observation has another shape than the network's.
        """
        observation = np.asarray(observation, self.description.observation_dtype)
        if observation.shape != self.description.observation_shape:
            raise ValueError(
                f"observation has the shape {observation.shape}; must be "
                f"{self.description.observation_shape}"
            )
        actions, _, self._core_state = self._policy(
            self.trained.snapshot.parameters,
            self._eta,
            PolicyInputs(
                observation[np.newaxis],
                np.array([self._last_action], np.int32),
                np.array([reward], np.float32),
                np.array([False]),
                self._core_state,
                np.array([[self._seed, self._steps]], np.int32),
            ),
        )
        self._steps += 1
        self._last_action = int(actions[0])
        return self._last_action

    def make_environment(self, num_envs: int = 1) -> BatchedEnvironment:
        """Makes its environment as it is evaluated; to be closed by the caller.

        Args:
          num_envs: copies that are stepped together.
        """
        return evaluated_environment(self._settings, num_envs)

    def evaluate(
        self, episodes: int = 20, *, seed: int = 1, out: str | os.PathLike[str] | None = None
    ) -> dict[str, Any]:
        """Plays full games by the rules of `meta-impala evaluate`, which plays 200 and saves them.

        Args:
          episodes: how many, at most 200,000.
          seed: of games and actions.
          out: file that the result is written to, a `.json` in a folder that exists; in the folder
            of a run its name begins with `evaluation`.

        Returns:
          `mean`, `standard_error`, `median`, `returns` and everything that defines them.

        Raises:
          ValueError: if `episodes` or `seed` is out of range.
          UserError: if `out` cannot be a file there, found before a game is played; if no game has
            a finite return.
        """
        path = None if out is None else user_path(os.fspath(out))
        if path is not None:
            check_evaluation_file(path, of_command=False)
        if not 1 <= episodes <= record.MAX_GAMES:
            raise ValueError(f"episodes is {episodes}; must be from 1 to {record.MAX_GAMES}")
        _checked_seed(seed)
        limit = record.frame_limit(self.config.environment, self.config.environment_arguments)
        evaluation = Evaluation(
            self.trained, self._settings, self.description, seed=seed, max_episode_frames=limit
        )
        return evaluation.run(episodes, min(16, episodes), path)


def load(path: str | os.PathLike[str], *, seed: int = 0, trust_modules: bool = False) -> Agent:
    """Loads an agent. TensorFlow's global seed is that of its run afterwards.

    Args:
      path: folder of a run (its newest checkpoint), file of an exported agent, or the name of one
        that comes with the program (`pong`).
      seed: of its actions.
      trust_modules: import the modules that the run or file names, which runs their code.

    Raises:
      ValueError: if the seed is out of range.
      UserError: if it is none of these, or its environment cannot be made here.
    """
    _checked_seed(seed)
    text, trust = os.fspath(path), trusting([], everything=trust_modules, remedy=_REMEDY)
    if RunFolder(text).has_run():
        run = open_trained_run(text, trust)
        trained = load_agent(run.folder.checkpoints, run.config, run.description)
        return Agent(trained, run.config, run.description, seed)
    file = shipped_agents.find(text)
    if file.is_dir():
        raise UserError(f"{file}: must be the folder of a run (there is no config.json)")
    opened = open_agent_file(file, trust)
    trained = load_agent_file(file, opened.config.part(AgentSettings), opened.description)
    return Agent(trained, opened.config, opened.description, seed)


def evaluate_agent(
    path: str | os.PathLike[str],
    episodes: int = 20,
    *,
    seed: int = 1,
    trust_modules: bool = False,
) -> dict[str, Any]:
    """Loads an agent and evaluates it; see `load` and `Agent.evaluate`.

    Args:
      path, trust_modules: as for `load`.
      episodes: full games to play.
      seed: of games and actions.

    Raises:
      ValueError, UserError: as these.
    """
    return load(path, trust_modules=trust_modules).evaluate(episodes, seed=seed)
