"""MinAtar by its short names: what is played, in which form, what is said where it is missing."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from meta_impala.config import Config, resolve_network
from meta_impala.environments import UnsupportedEnvironmentError, describe, make, resolve
from meta_impala.environments.minatar_games import GAMES, is_installed, register

PLANES = {"Asterix": 4, "Breakout": 4, "Freeway": 7, "Seaquest": 10, "SpaceInvaders": 6}
needs_minatar = pytest.mark.skipif(not is_installed(), reason="needs the extra minatar")


@pytest.mark.parametrize("game", GAMES)
def test_a_short_name_is_version_1_in_any_case(game):
    for name in (f"MinAtar/{game}", f"minatar/{game.lower()}", f"MinAtar/{game}-v1"):
        assert resolve(name).id == f"MinAtar/{game}-v1"


def test_names_are_resolved_without_importing_anything():
    code = (
        "import sys\n"
        "from meta_impala.environments import resolve\n"
        "resolve('MinAtar/Breakout'), resolve('Patience'), resolve('Switching/first')\n"
        "print([m for m in ('gymnasium', 'minatar') if m in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert result.stdout == "[]\n", result.stderr


@needs_minatar
@pytest.mark.parametrize("game", GAMES)
def test_the_planes_are_zeros_and_ones_in_float32(game):
    description = describe(f"MinAtar/{game}", "impala")
    assert description.observation_shape == (10, 10, PLANES[game])
    # uint8 would be scaled by 1/255 in a torso.
    assert description.observation_dtype == np.float32
    assert description.num_actions == len(gymnasium.make(f"MinAtar/{game}-v1").unwrapped.action_set)
    assert resolve_network(Config(), description.observation_shape).network == "minatar"
    batch = make(f"MinAtar/{game}", 2, "impala")
    observations = batch.reset(seed=0)
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert set(np.unique(observations)) == {0.0, 1.0}
        observations = batch.step(rng.integers(0, batch.num_actions, 2)).observations


@needs_minatar
def test_a_game_equals_minatars_own():
    batch = make("MinAtar/Breakout", 1, "impala")
    single = gymnasium.make("MinAtar/Breakout-v1")
    np.testing.assert_array_equal(batch.reset(seed=7)[0], single.reset(seed=7)[0])
    rng, ends = np.random.default_rng(0), 0
    for _ in range(300):
        action = int(rng.integers(0, batch.num_actions))
        step = batch.step(np.array([action]))
        observation, reward, ended, _, _ = single.step(action)
        assert step.rewards[0] == reward and step.episode_ends[0] == ended
        if ended:
            np.testing.assert_array_equal(step.final_observations[0], observation)
            observation, _ = single.reset()
            ends += 1
        np.testing.assert_array_equal(step.observations[0], observation)
    assert ends


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    if is_installed():
        register()
    for env_id in [name for name in gymnasium.registry if name.startswith("MinAtar/")]:
        monkeypatch.delitem(gymnasium.registry, env_id)
    for module in ("minatar", "minatar.gym"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UnsupportedEnvironmentError) as refusal:
        describe("MinAtar/Breakout", "impala")
    assert str(refusal.value).endswith("pip install 'meta_impala[minatar]'")
    assert "\n" not in str(refusal.value)
