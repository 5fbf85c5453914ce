"""Plays full games with the agent of a checkpoint: raw returns, stochastic policy.

"Full" is until the game is over or its time limit: a life loss resets the LSTM, as in training, but
ends no game. Every environment plays a number of games fixed beforehand. Taking the first N games
that end, whoever played them, would over-represent short games, and so, in most games, low scores.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from meta_impala.agent import Snapshot, make_network
from meta_impala.config import Config
from meta_impala.environments import BatchedEnvironment, Description
from meta_impala.networks.actor_critic import ActorCritic
from meta_impala.runtime.checkpoint import identity_of, restore_for_evaluation
from meta_impala.runtime.learner import Learner


class Game(NamedTuple):
    """A full game: raw return, length in environment frames, and who played it (0 to N − 1)."""

    episode_return: float
    frames: int
    environment: int


class Acts(Protocol):
    """What `agent.Policy` does."""

    def __call__(
        self,
        parameters: Sequence[tf.Tensor],
        eta: np.ndarray,
        observations: np.ndarray,
        last_actions: np.ndarray,
        rewards: np.ndarray,
        resets: np.ndarray,
        core_state: np.ndarray,
        seed: tuple[int, int],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]: ...


def quotas(episodes: int, num_envs: int) -> np.ndarray:
    """How many games each environment plays, `[num_envs]`: `episodes` in all, equal within one."""
    return episodes // num_envs + (np.arange(num_envs) < episodes % num_envs)


def play_games(
    policy: Acts,
    snapshot: Snapshot,
    environment: BatchedEnvironment,
    episodes: int,
    seed: int,
    *,
    core_state_size: int = 0,
    on_game: Callable[[Game], None] | None = None,
) -> list[Game]:
    """Plays full games, each environment its quota; the inputs are those of `runtime.actor.Actor`.

    An environment that has played its quota goes on being stepped, and counts no more.

    Args:
      policy: for `environment.num_envs` environments.
      snapshot: what acts, from the first step to the last.
      environment: is reset here; left open.
      episodes: how many games, at least 1.
      seed: of environments and actions; the same seed gives the same games.
      core_state_size: S of the network's recurrent state.
      on_game: called after each game that counts.

    Returns:
      The games, in the order in which they ended.
    """
    num_envs = environment.num_envs
    eta = snapshot.eta.numpy()
    if eta.ndim == 1:  # one for all states, hence for all environments
        eta = np.tile(eta, (num_envs, 1))
    remaining = quotas(episodes, num_envs)
    observations = environment.reset(seed)
    last_actions = np.zeros([num_envs], np.int32)
    rewards = np.zeros([num_envs], np.float32)
    resets = np.zeros([num_envs], bool)
    core_state = np.zeros([num_envs, core_state_size], np.float32)
    games: list[Game] = []
    calls = 0
    while remaining.any():
        actions, _, core_state = policy(
            snapshot.parameters,
            eta,
            observations,
            last_actions,
            rewards,
            resets,
            core_state,
            (seed, calls),
        )
        calls += 1
        step = environment.step(actions)
        observations, last_actions, rewards = step.observations, actions, step.rewards
        resets = step.terminations | step.truncations
        for i in np.flatnonzero(step.episode_ends & (remaining > 0)):
            remaining[i] -= 1
            games.append(Game(float(step.episode_returns[i]), int(step.episode_frames[i]), int(i)))
            if on_game is not None:
                on_game(games[-1])
    return games


class TrainedAgent(NamedTuple):
    """The agent of a checkpoint.

    Attributes:
      network: its variables hold θ too.
      snapshot: θ and the η that the network is fed.
      frames: environment frames learned from.
      checkpoint: name of the checkpoint.
    """

    network: ActorCritic
    snapshot: Snapshot
    frames: int
    checkpoint: str


def configure_tensorflow() -> None:
    """Process-wide settings; to be made before the first operation."""
    # Policies act on the CPU; a GPU is left to the training that may be using it.
    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    # What is wrong with a checkpoint is said in one line, or mended by reading the next: without
    # this a page on "unrestored values" follows.
    tf.get_logger().setLevel("CRITICAL")


def load_agent(checkpoints: pathlib.Path, config: Config, description: Description) -> TrainedAgent:
    """The agent of the newest checkpoint that is whole; training may be writing the next.

    Args:
      checkpoints: folder of the checkpoints; nothing in it is touched.
      config: of the run, resolved, network included.
      description: of its environment.

    Raises:
      UserError: if there is no checkpoint, or it is of another run, or none is whole.
    """
    learner = Learner(config, description, make_network(config, description))
    identity = identity_of(config, description, learner.state)
    path = restore_for_evaluation(checkpoints, learner.state, identity)
    return TrainedAgent(
        network=learner.state.network,
        snapshot=learner.snapshot(),
        frames=int(learner.state.frames.numpy()),
        checkpoint=path.name,
    )


def with_eta(snapshot: Snapshot, gamma: float, lambda_: float) -> Snapshot:
    """The same θ, fed another η."""
    return snapshot._replace(eta=tf.constant([gamma, lambda_], tf.float32))
