"""What an actor records where a time limit cuts (rows, flags, core, counts), and that it goes on
from there to the bit. Ground truth: the environments' own steps; determinism.
"""

import numpy as np
import pytest
import support.time_limits  # noqa: F401 - registers the environments
import tensorflow as tf
from support.run_helpers import make_config

from meta_impala.actors.actor import Actor
from meta_impala.actors.trajectory import Block, Unroll
from meta_impala.agent.policy import Policy
from meta_impala.algorithm.losses import action_log_probs
from meta_impala.config import AgentSettings, resolve_network
from meta_impala.distributed.wire import pack, unpack
from meta_impala.environments import registry
from meta_impala.learner.learner import Learner
from meta_impala.learner.make_learner import make_learner

T = 7


def make_actor(name: str, num_envs: int = 2, **settings) -> tuple[Actor, Learner]:
    environment = f"support.time_limits:{name}" if "/" not in name else name
    config = make_config(
        environment=environment, unroll_length=T, batch_size=num_envs, envs_per_actor=num_envs,
        meta_batch_size=1, **settings,
    )  # fmt: skip
    description = registry.describe(config.environment, config.protocol)
    config = resolve_network(config, description.observation_shape)
    learner = make_learner(config, description)
    network = learner.state.network
    made = registry.make(config.environment, num_envs, config.protocol)
    policy = Policy(network, config.part(AgentSettings), description, num_envs)
    actor = Actor(0, made, policy, T, keep_actions=True)
    actor.reset(5, network.settings.core_state_size)
    return actor, learner


def play(actor: Actor, learner: Learner, count: int) -> list[Block]:
    snapshot = learner.snapshot()
    return [actor.unroll(snapshot) for _ in range(count)]


def rows_of(blocks: list[Block], name: str) -> np.ndarray:
    """The arrivals of consecutive unrolls as one history; row 0 of an unroll is the last row of
    the one before."""
    arrays = [getattr(block.unroll, name) for block in blocks]
    for one, two in zip(arrays[:-1], arrays[1:], strict=True):
        np.testing.assert_array_equal(one[-1], two[0])
    return np.concatenate([arrays[0], *(array[1:] for array in arrays[1:])])


@pytest.mark.parametrize(("name", "horizon"), [("FixedTrunc-v0", 5), ("Limit1-v0", 1)])
def test_the_final_observation_is_a_row_and_the_step_after_it_is_marked(name, horizon):
    actor, learner = make_actor(name)
    blocks = play(actor, learner, 6)
    period = horizon + 2 - 1  # states 0 to `horizon`; the step back to 0 costs one row
    times = np.arange(6 * T + 1) % period
    np.testing.assert_allclose(
        rows_of(blocks, "observations")[..., 0], np.tile(times[:, np.newaxis], (1, 2)) / 10
    )
    truncations = rows_of(blocks, "truncations")
    arrivals_from_final = (times == 0) & (np.arange(len(times)) > 0)
    np.testing.assert_array_equal(truncations, np.tile(arrivals_from_final[:, None], (1, 2)))
    assert not rows_of(blocks, "terminations").any()
    # The reward of the last step stands at the final observation; the marked row has none.
    rewards, actions = rows_of(blocks, "rewards"), rows_of(blocks, "last_actions")
    assert not rewards[times != horizon].any()
    for row in np.flatnonzero(times == horizon):
        done = actions[row - horizon + 1 : row + 1].mean(axis=0)
        np.testing.assert_allclose(rewards[row], done, rtol=1e-6)
    # Every episode once, with its length and return; what waits is no frame.
    episodes = [episode for block in blocks for episode in block.episodes]
    ended = int((times == horizon)[1:].sum())
    assert len(episodes) == 2 * ended and {e.frames for e in episodes} == {horizon}
    returns = sorted(episode.episode_return for episode in episodes)
    np.testing.assert_allclose(returns, sorted(rewards[times == horizon].ravel()), rtol=1e-6)
    actor.close()


def test_a_termination_adds_no_row():
    actor, learner = make_actor("FixedTerm-v0")
    blocks = play(actor, learner, 4)
    times = np.arange(4 * T + 1) % 5
    np.testing.assert_allclose(rows_of(blocks, "observations")[:, 0, 0], times / 10, rtol=1e-6)
    assert not rows_of(blocks, "truncations").any()
    ends = (times == 0) & (np.arange(len(times)) > 0)
    np.testing.assert_array_equal(rows_of(blocks, "terminations")[:, 0], ends)
    actor.close()


def test_the_core_is_reset_after_the_final_observation_and_not_on_arriving_there():
    """log μ of every step is that of the learner's forward pass over the recorded rows."""
    actor, learner = make_actor("FixedTrunc-v0", core="lstm", core_size=4,
                                last_action_and_reward=True, meta_parameters="none")  # fmt: skip
    random = np.random.default_rng(0)
    network = learner.state.network
    for variable in network.trainable_variables:
        variable.assign_add(random.normal(size=variable.shape).astype(np.float32))
    for block in play(actor, learner, 5):
        trajectories = learner.factory.trajectories(Unroll(*map(tf.constant, block.unroll)))
        fed = tf.zeros([0])
        output = network(trajectories.inputs, trajectories.core_state, fed)
        expected = action_log_probs(output.policy_logits[:-1], trajectories.transitions.actions)
        np.testing.assert_allclose(block.unroll.behaviour_log_probs, expected, rtol=2e-4, atol=1e-5)
        # Were it reset one row earlier, it would be another policy at the final observation.
        early = np.roll(block.unroll.truncations, -1, axis=0)
        inputs = trajectories.inputs._replace(resets=early | block.unroll.truncations)
        other = network(inputs, trajectories.core_state, fed)
        if early[1:-1].any():
            assert np.abs(np.array(other.values) - np.array(output.values)).max() > 1e-3
    actor.close()


def test_frames_are_those_that_were_emulated():
    """≤ updates × batch; exactly the rows of weight 1."""
    actor, learner = make_actor("FixedTrunc-v0", meta_parameters="none")
    blocks = play(actor, learner, 5)
    emulated = 0
    for updates, (block, other) in enumerate(zip(blocks[:-1], blocks[1:], strict=True)):
        statistics, _ = learner.update(block.unroll, other.unroll, updates, emulated)
        real = int((~block.unroll.truncations[1:]).sum())
        emulated += real
        assert statistics.steps == real < 2 * T
        assert int(learner.state.frames.numpy()) == emulated
    actor.close()


@pytest.mark.parametrize("unrolls", range(1, 7))
def test_a_replay_restores_the_actor_also_at_a_final_observation(unrolls):
    """Of six unrolls of 7 steps with a period of 6 one ends at every phase of an episode."""
    actor, learner = make_actor("FixedTrunc-v0")
    blocks = play(actor, learner, unrolls)
    state = actor.state()
    expected = play(actor, learner, 2)
    again, _ = make_actor("FixedTrunc-v0")
    assert again.replay(state, lambda: False)
    for one, other in zip(expected, play(again, learner, 2), strict=True):
        assert one.episodes == other.episodes
        for a, b in zip(one.unroll, other.unroll, strict=True):
            np.testing.assert_array_equal(a, b)
    assert blocks
    actor.close()
    again.close()


def test_unrolls_end_at_every_step_of_an_episode():
    actor, learner = make_actor("FixedTrunc-v0")
    last = [round(10 * float(b.unroll.observations[-1, 0, 0])) for b in play(actor, learner, 6)]
    assert sorted(last) == [0, 1, 2, 3, 4, 5]
    actor.close()


@pytest.mark.parametrize("name", ["FixedTrunc-v0", "Limit1-v0"])
def test_unrolls_with_truncations_survive_the_wire(name):
    actor, learner = make_actor(name)
    for block in play(actor, learner, 3):
        assert block.unroll.truncations.any()
        for sent, came in zip(block.unroll, unpack(pack(block.unroll)), strict=True):
            np.testing.assert_array_equal(sent, came)
    actor.close()
