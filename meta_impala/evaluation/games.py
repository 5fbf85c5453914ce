"""Plays full games with the agent of a checkpoint: raw returns, stochastic policy.

A full game ends when it is over or at its time limit: a life loss resets the LSTM, as in training,
but does not end the game. Every game is defined by the evaluation's seed and its number, whichever
environment plays it and whatever runs beside it: an interrupted evaluation is continued with the
missing games, and all games asked for count, so that short games are not over-represented.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import os
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import tensorflow as tf

from meta_impala.agent.policy import Policy, PolicyFn, PolicyInputs, Snapshot
from meta_impala.config import RunSettings
from meta_impala.environments import BatchedEnvironment, registry
from meta_impala.evaluation import starts as game_starts
from meta_impala.evaluation.record import Game, noops
from meta_impala.evaluation.starts import Start


class GamePolicy(Policy):
    """The policy with a seed of its own for every environment: `seed` is `[N, 2]` int32.

    A game's random numbers then do not depend on the games beside it.
    """

    def _seed_shape(self, num_envs: int) -> list[int]:
        return [num_envs, 2]

    def _choose(self, logits: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        def one(row: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            return tf.random.stateless_categorical(row[0][tf.newaxis], 1, row[1], dtype=tf.int32)

        return tf.map_fn(one, (logits, seed), fn_output_signature=tf.int32)[:, 0, 0]


class Table:
    """One environment, the game that is played there, and the inputs of the next action.

    The inputs are those of `actors.actor.Actor`. `frames` are those of the game from its beginning,
    its start included: a limit counts them, as the environment's own does.
    """

    def __init__(self, environment: BatchedEnvironment, core_state_size: int) -> None:
        self._environment = environment
        self._size = core_state_size
        self.is_busy = False
        self.observation = np.zeros(environment.observation_shape, environment.observation_dtype)
        self._clear()

    def _clear(self) -> None:
        self.last_action, self.reward, self.reset = 0, 0.0, False
        self.core_state = np.zeros([self._size], np.float32)
        self.seed = (0, 0)

    def begin(self, number: int, start: Start, action_seed: int) -> None:
        """Raises UserError if the start cannot be reached."""
        self._clear()
        self._rewards = 0.0
        self._number, self._action_seed = number, action_seed
        started = game_starts.begin(self._environment, start)
        self.observation, self.frames = started.observation, started.frames
        self._return_before, self._frames_before = started.episode_return, started.frames
        self.seed = (action_seed, 0)
        self.is_busy = True

    def play(self, action: int, core_state: np.ndarray, max_frames: int | None) -> Game | None:
        """Takes an action; returns the game if that ended it, or it has come to its limit."""
        step = self._environment.step(np.array([action]))
        self.observation, self.core_state = step.observations[0], core_state
        self.last_action, self.reward = action, float(step.rewards[0])
        self.reset = bool(step.terminations[0] | step.truncations[0])
        self.seed = (self._action_seed, self.seed[1] + 1)
        self._rewards += self.reward
        self.frames += self._environment.action_repeat
        if not step.episode_ends[0]:
            if max_frames is None or self.frames < max_frames:
                return None
            self.is_busy = False
            return Game(self._number, self._rewards, self.frames - self._frames_before)
        self.is_busy = False
        return Game(
            self._number,
            float(step.episode_returns[0]) - self._return_before,
            int(step.episode_frames[0]) - self._frames_before,
        )


def inputs_of(tables: Sequence[Table]) -> PolicyInputs:
    """The inputs of the next actions at all tables, for `GamePolicy`."""
    return PolicyInputs(
        np.stack([table.observation for table in tables]),
        np.array([table.last_action for table in tables], np.int32),
        np.array([table.reward for table in tables], np.float32),
        np.array([table.reset for table in tables]),
        np.stack([table.core_state for table in tables]),
        np.array([table.seed for table in tables], np.int32),
    )


def evaluated_environment(run: RunSettings, num_envs: int = 1) -> BatchedEnvironment:
    """Makes the environment of a run as it is evaluated; to be closed by the caller.

    Args:
      run: resolved.
      num_envs: copies that are stepped together.
    """
    name, arguments = registry.evaluated_in(run.environment, run.environment_arguments)
    return registry.make(
        name,
        num_envs,
        run.protocol,
        environment_kwargs=arguments,
        min_noops=noops(run.protocol)[0],
    )


def eta_of_environments(snapshot: Snapshot, num_envs: int) -> np.ndarray:
    """What a policy is fed as η: `[N, E]`, or the snapshot's weights with an η per state.

    Args:
      snapshot: what acts.
      num_envs: N.
    """
    eta = snapshot.eta.values.numpy()
    if not snapshot.eta.per_state:
        eta = np.tile(eta, (num_envs, 1))
    return eta


def play_games(
    policy: PolicyFn,
    snapshot: Snapshot,
    environments: Sequence[BatchedEnvironment],
    games: Iterable[tuple[int, Start]],
    seed: int,
    *,
    core_state_size: int = 0,
    max_frames: int | None = None,
    on_game: Callable[[Game], None] | None = None,
    on_step: Callable[[int], None] = lambda frames: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Game]:
    """Plays full games, each environment the next one when it is free.

    Args:
      policy: for a batch of `len(environments)`.
      snapshot: acts in all games.
      environments: of one game each; left open.
      games: number and start of each.
      seed: of the evaluation; with a game's number it seeds the actions.
      core_state_size: S of the network's recurrent state.
      max_frames: a game that has not ended after so many environment frames, its start included, is
        cut there; None for the environment's own time limit alone.
      on_game: called after each game.
      on_step: called after each step with the frames of the longest game that goes on.
      should_stop: asked before each step.

    Returns:
      The games, in the order in which they ended.

    Raises:
      UserError: if a start cannot be reached.
      KeyboardInterrupt: if it should stop.
    """
    tables = [Table(environment, core_state_size) for environment in environments]
    eta = eta_of_environments(snapshot, len(tables))
    waiting = iter(games)
    finished: list[Game] = []

    def begin(table: Table, game: tuple[int, Start]) -> None:
        number, start = game
        table.begin(number, start, game_starts.game_seeds(seed, number)[1])

    workers = min(len(tables), os.cpu_count() or 1)
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        list(pool.map(begin, tables, itertools.islice(waiting, len(tables))))
        while any(table.is_busy for table in tables):
            if should_stop():
                raise KeyboardInterrupt
            actions, _, core_states = policy(snapshot.parameters, eta, inputs_of(tables))
            busy = [i for i, table in enumerate(tables) if table.is_busy]
            played = pool.map(
                lambda i: tables[i].play(int(actions[i]), core_states[i], max_frames),  # noqa: B023
                busy,
            )
            for index, game in zip(busy, list(played), strict=True):
                if game is not None:
                    finished.append(game)
                    if on_game is not None:
                        on_game(game)
                    for following in itertools.islice(waiting, 1):
                        begin(tables[index], following)
            on_step(max((table.frames for table in tables if table.is_busy), default=0))
    return finished
