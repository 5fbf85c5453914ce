"""Environments that are made early: started once, with the seed that was expected."""

import numpy as np
import pytest
from support.run_helpers import make_config, make_trainer, numbers

from meta_impala.actors.making import EarlyEnvironment, actor_seed, early_environment
from meta_impala.config import ActorSettings, RunSettings
from meta_impala.environments import registry
from meta_impala.errors import RunFailed


class _Counting:
    """An environment that counts its resets."""

    num_envs = 2

    def __init__(self, error=None):
        self.seeds, self.error, self.is_closed = [], error, False

    def reset(self, seed):
        self.seeds.append(seed)
        if self.error is not None:
            raise self.error
        return np.full([2, 1], seed)

    def step(self, actions):
        return actions

    def close(self):
        self.is_closed = True


def test_an_early_environment_is_reset_once_with_the_expected_seed():
    environment = _Counting()
    early = EarlyEnvironment(environment, 7)
    assert early.reset(7)[0, 0] == 7 and environment.seeds == [7]
    assert early.reset(7)[0, 0] == 7 and environment.seeds == [7, 7]  # a second time it is
    assert early.num_envs == 2 and early.step(3) == 3
    early.close()
    assert environment.is_closed


@pytest.mark.parametrize(("expected", "seeds"), [(7, [7, 8]), (None, [8])])
def test_another_seed_resets_an_early_environment_again(expected, seeds):
    environment = _Counting()
    assert EarlyEnvironment(environment, expected).reset(8)[0, 0] == 8
    assert environment.seeds == seeds


@pytest.mark.parametrize(
    ("error", "raised"), [(OSError("no ROM"), OSError), (SystemExit(0), RunFailed)]
)
def test_an_error_of_the_early_reset_is_raised_by_reset(error, raised):
    early = EarlyEnvironment(_Counting(error), 7)
    with pytest.raises(raised):
        early.reset(7)


def test_only_emulators_of_threads_are_made_early():
    def made(**settings):
        config = make_config(**settings)
        return early_environment(config.part(RunSettings), config.part(ActorSettings), is_new=True)

    assert made() is None  # Catch takes no time to make
    assert made(environment="Pong", actors="ray") is None
    early = made(environment="Pong", num_actors=1)
    try:
        observations = early.reset(actor_seed(1, 0, 0, 2))
    finally:
        early.close()
    other = registry.make("Pong", 2, "impala")
    np.testing.assert_array_equal(observations, other.reset(actor_seed(1, 0, 0, 2)))
    other.close()


def _early(config):
    environment = registry.make(config.environment, config.envs_per_actor, config.protocol)
    return EarlyEnvironment(environment, actor_seed(config.seed, 0, 0, config.envs_per_actor))


def test_a_deterministic_run_is_the_same_to_the_bit(tmp_path):
    config = make_config(deterministic=True, num_actors=2)
    states = []
    for name, early in (("late", None), ("early", _early(config))):
        trainer = make_trainer(tmp_path / name, config, early=early)
        assert trainer.run() == "finished"
        states.append(numbers(trainer.learner.state))
    for one, other in zip(*states, strict=True):
        np.testing.assert_array_equal(one, other)


def test_threads_begin_with_the_first_actor_and_the_others_join(tmp_path):
    config = make_config(num_actors=3, total_frames=400 * 20)
    trainer = make_trainer(tmp_path, config, early=_early(config))
    seen = []
    publish = trainer._update

    def update(batch, ahead):
        seen.append({block.actor for block in batch.blocks})
        publish(batch, ahead)

    trainer._update = update
    assert trainer.run() == "finished"
    assert seen[0] == {0} and set.union(*seen) == {0, 1, 2}
