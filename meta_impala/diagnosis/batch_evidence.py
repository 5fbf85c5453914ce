"""A few games with a run's newest checkpoint: critic, hidden units, policy, rewards, ends.

The games are played as an actor plays them in training; no variable is changed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from meta_impala.actors.making import actor_seed
from meta_impala.actors.startup import make_actor
from meta_impala.actors.trajectory import Block, Unroll
from meta_impala.agent.policy import Policy, Snapshot
from meta_impala.algorithm.losses import entropies
from meta_impala.algorithm.meta_parameters import GAMMA, embedding_input
from meta_impala.config import ActingSettings, AgentSettings, Config
from meta_impala.diagnosis.evidence import BatchEvidence
from meta_impala.environments import Description, registry
from meta_impala.learner.learner import Learner

# More environments add no information.
_MOST_ENVIRONMENTS = 32
# Returns in which the bootstrap value has more weight than this are left out.
_BOOTSTRAPPED = 0.5
_FEWEST_RETURNS = 32


class _Outputs(NamedTuple):
    """The network on an unroll: entropy and values `[T+1, B]`, units `[H]` that were active, and
    the discount `[T+1, B]` in use."""

    entropies: np.ndarray
    values: np.ndarray
    active: np.ndarray
    gammas: np.ndarray


def play(
    learner: Learner,
    config: Config,
    description: Description,
    checkpoint: str,
    *,
    steps: int,
    seed: int,
) -> BatchEvidence:
    """Plays games and measures them.

    Args:
      learner: restored; not changed.
      config: of its run.
      description: of its environment.
      checkpoint: its name.
      steps: of each environment; rounded up to whole unrolls.
      seed: of games and actions.
    """
    snapshot = learner.snapshot()
    num_envs = min(config.batch_size, _MOST_ENVIRONMENTS)
    policy = Policy(learner.state.network, config.part(AgentSettings), description, num_envs)
    environment = registry.make(
        config.environment,
        num_envs,
        config.protocol,
        num_threads=min(num_envs, os.cpu_count() or 1),
        environment_kwargs=config.environment_arguments,
    )
    actor = make_actor(0, config.part(ActingSettings), policy, environment)
    with contextlib.closing(actor):
        core_state_size = learner.state.network.settings.core_state_size
        actor.reset(actor_seed(seed, snapshot.version, 0, num_envs), core_state_size)
        outputs_of = _network(learner, snapshot, config.eta_embedding_input)
        blocks, outputs = [], []
        for _ in range(-(-steps // config.unroll_length)):
            block = actor.unroll(snapshot)
            outputs.append(outputs_of(block.unroll))
            # Its observations are not needed any more, and those of all unrolls could fill memory.
            small = block.unroll._replace(observations=None, core_state=None)
            blocks.append(block._replace(unroll=small))
    return _evidence(config.reward_clip, description, checkpoint, blocks, outputs)


def _network(learner: Learner, snapshot: Snapshot, embedding: str) -> Callable[[Unroll], _Outputs]:
    """The network of the snapshot, fed the η that acted."""
    network, parameters = learner.state.network, learner.meta_parameters
    schedule = learner.factory.schedule

    @tf.function(autograph=False)
    def function(batch: Unroll) -> tuple[tf.Tensor, ...]:
        trajectories = learner.factory.trajectories(batch)
        inputs, shape = trajectories.inputs, trajectories.inputs.last_rewards.shape
        features = network.body(inputs.observations)
        if snapshot.eta.per_state:
            values = parameters.at_states(snapshot.eta.values, features)
            fed, gamma = parameters.fed(values, features.dtype), values[GAMMA]
        else:
            entries = tf.unstack(batch.eta, axis=-1)
            if schedule.is_drawn:
                entries = schedule.fed_of(entries)
            else:  # what is not γ or λ is the same in all environments
                entries += tf.unstack(snapshot.eta.values)[2:]
            fed = [tf.broadcast_to(entry, shape) for entry in entries]
            gamma = fed[0]
        eta_input = embedding_input(fed, embedding)
        output = network.heads(features, inputs, trajectories.core_state, eta_input)
        hidden = network.last_hidden(features, inputs, eta_input)
        return (
            entropies(output.policy_logits),
            output.values,
            tf.reduce_any(hidden > 0, axis=0),
            tf.broadcast_to(gamma, shape),
        )

    def outputs_of(unroll: Unroll) -> _Outputs:
        tensors = Unroll(*map(tf.constant, unroll))
        return _Outputs._make(tensor.numpy() for tensor in function(tensors))

    return outputs_of


def _evidence(
    clip: float,
    description: Description,
    checkpoint: str,
    blocks: Sequence[Block],
    outputs: Sequence[_Outputs],
) -> BatchEvidence:
    unrolls = [block.unroll for block in blocks]
    # Unrolls overlap by a row: row 0 repeats the last row of the one before.
    rewards, ends, cuts = (
        np.concatenate([getattr(unroll, name)[1:] for unroll in unrolls])
        for name in ("rewards", "terminations", "truncations")
    )
    gammas = np.concatenate([part.gammas[1:] for part in outputs])
    values = np.concatenate([*(part.values[:-1] for part in outputs), outputs[-1].values[-1:]])
    clipped = np.clip(rewards, -clip, clip) if clip > 0 else rewards
    returns, bootstrapped = returns_of(clipped, gammas * ~ends, cuts, values)
    counted = ~cuts & (bootstrapped <= _BOOTSTRAPPED)
    entropy = np.concatenate([part.entropies[:-1] for part in outputs])[~cuts]
    active = np.any([part.active for part in outputs], axis=0)
    return BatchEvidence(
        checkpoint=checkpoint,
        steps=int((~cuts).sum()),
        num_actions=description.num_actions,
        entropy=float(entropy.mean()),
        explained_variance=explained_variance(returns[counted], values[:-1][counted]),
        dead_units=float(1.0 - active.mean()),
        hidden_units=len(active),
        rewards=rewards[rewards != 0],
        terminations=int(ends.sum()),
        games=sum(len(block.episodes) for block in blocks),
        truncations=int(cuts.sum()),
    )


def returns_of(
    rewards: np.ndarray, discounts: np.ndarray, cuts: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Discounted returns to the end of the episode, or of what was played.

    Args:
      rewards: `[T, B]`, received on the way from state t to t+1.
      discounts: `[T, B]`, γ, or 0 where state t+1 is terminal.
      cuts: `[T, B]`, whether state t is the final observation of an episode that a time limit cut,
        and t+1 the first of the next.
      values: `[T+1, B]`, of the critic; the last row and the final observations are bootstrapped.

    Returns:
      The returns `[T, B]`, and with which weight each is bootstrapped from the critic.
    """
    returns, weights = np.empty(rewards.shape), np.empty(rewards.shape)
    following, weight = values[-1].astype(np.float64), np.ones(rewards.shape[1])
    for t in reversed(range(len(rewards))):
        following = np.where(cuts[t], values[t], rewards[t] + discounts[t] * following)
        weight = np.where(cuts[t], 1.0, discounts[t] * weight)
        returns[t], weights[t] = following, weight
    return returns, weights


def explained_variance(returns: np.ndarray, values: np.ndarray) -> float:
    """1 − Var(G − V)/Var(G); NaN if there are too few returns, or all are the same."""
    if len(returns) < _FEWEST_RETURNS or not returns.var() > 1e-12:
        return float("nan")
    return float(1.0 - (returns - values).var() / returns.var())
