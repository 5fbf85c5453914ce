"""A game step by step, with what the network says of each state: for `watch`.

The policy is that of `evaluate`, and its graph also returns V(S), π(·|S) and the γ and λ that the
network was fed, so that what is shown is what acted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from meta_impala.agent.policy import Snapshot
from meta_impala.evaluation import starts as game_starts
from meta_impala.evaluation.games import GamePolicy, Table, eta_of_environments, inputs_of
from meta_impala.evaluation.starts import Start
from meta_impala.evaluation.watched_environment import WatchedEnvironment
from meta_impala.networks.actor_critic import NetworkOutput


class InspectedPolicy(GamePolicy):
    """`run` also returns V `[N]`, π `[N, A]`, and γ and λ `[N, 2]` of the states."""

    def _more(self, output: NetworkOutput, fed: Sequence[tf.Tensor]) -> tuple[tf.Tensor, ...]:
        values = output.values[0]
        gamma_and_lambda = [tf.broadcast_to(value, [1, values.shape[0]])[0] for value in fed[:2]]
        policy = tf.nn.softmax(output.policy_logits[0])
        return values, policy, tf.stack(gamma_and_lambda, axis=-1)


class LiveStep(NamedTuple):
    """A state of a game, and what the network says of it.

    Attributes:
      picture: `[H, W, 3]` uint8.
      value: V(S); None of the state that ended the game.
      policy: `[A]`, π(·|S); likewise.
      action: that was drawn from it; likewise.
      gamma, lambda_: that the network was fed, of this state.
      episode_return: undiscounted sum of the rewards so far.
      steps: agent steps so far.
    """

    picture: np.ndarray
    value: float | None
    policy: np.ndarray | None
    action: int | None
    gamma: float
    lambda_: float
    episode_return: float
    steps: int


def play_live(
    policy: InspectedPolicy,
    snapshot: Snapshot,
    environment: WatchedEnvironment,
    seed: int,
    number: int,
    *,
    core_state_size: int = 0,
    max_frames: int | None = None,
) -> Iterator[LiveStep]:
    """Plays one full game; yields every state, the one that ends it last.

    Args:
      policy: for one environment.
      snapshot: what acts.
      environment: left open; its `on_picture` is taken.
      seed: of all games.
      number: of this one; with the seed it determines the game and its actions.
      core_state_size: S of the network's recurrent state.
      max_frames: environment frames after which it is cut; None for its own time limit alone.
    """
    pictures: list[np.ndarray] = []
    environment.on_picture = pictures.append
    table = Table(environment, core_state_size)
    game_seed, action_seed = game_starts.game_seeds(seed, number)
    table.begin(number, Start(game_seed), action_seed)
    eta = eta_of_environments(snapshot, 1)
    episode_return, steps = 0.0, 0
    while True:
        results = policy.run(snapshot.parameters, eta, inputs_of([table]))
        actions, _, core_states, values, policies, discounts = results
        gamma, lambda_ = (float(value) for value in discounts[0])
        action = int(actions[0])
        step = LiveStep(
            pictures[-1],
            float(values[0]),
            policies[0],
            action,
            gamma,
            lambda_,
            episode_return,
            steps,
        )
        pictures.clear()
        yield step
        game = table.play(action, core_states[0], max_frames)
        episode_return, steps = episode_return + table.reward, steps + 1
        if game is not None:
            last = step._replace(picture=pictures[-1], value=None, policy=None, action=None)
            yield last._replace(episode_return=game.episode_return, steps=steps)
            return
