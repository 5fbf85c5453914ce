"""Names of environments: what they resolve to, what is refused, and that this is quick."""

import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import meta_impala
from meta_impala.environments import (
    ATARI_57,
    EnvironmentSpec,
    UnknownEnvironmentError,
    UnsupportedEnvironmentError,
    describe,
    make,
    make_render,
    resolve,
)
from meta_impala.environments.catch import CATCH_ID


def run_python(code):
    root = Path(meta_impala.__file__).parent.parent
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        capture_output=True,
        check=False,  # The tests show stderr instead.
        text=True,
        timeout=300,
    )


def test_the_57_games_are_57_and_ale_py_has_them_all():
    import ale_py

    gymnasium.register_envs(ale_py)
    assert len(set(ATARI_57)) == 57
    for game in ATARI_57:
        assert f"ALE/{game}-v5" in gymnasium.registry


@pytest.mark.parametrize("game", ATARI_57)
def test_a_game_resolves_by_name_by_id_and_in_any_case(game):
    spec = EnvironmentSpec("atari", f"ALE/{game}-v5", game)
    for name in (game, game.lower(), f"ALE/{game}-v5", f"ale/{game.upper()}-V5", f" {game} "):
        assert resolve(name) == spec


def test_games_beyond_the_57_resolve_too():
    assert resolve("adventure") == EnvironmentSpec("atari", "ALE/Adventure-v5", "Adventure")


def test_catch_and_gymnasium_ids_resolve():
    catch = EnvironmentSpec("gymnasium", CATCH_ID)
    assert resolve("Catch") == resolve("catch") == resolve(CATCH_ID) == catch
    assert resolve("CartPole-v1") == EnvironmentSpec("gymnasium", "CartPole-v1")
    assert resolve("cartpole-v1") == EnvironmentSpec("gymnasium", "CartPole-v1")


def test_an_id_may_name_the_module_that_registers_it(tmp_path, monkeypatch):
    (tmp_path / "my_module.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Mine-v0', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownEnvironmentError):
        resolve("Mine-v0")
    try:
        spec = resolve("my_module:Mine-v0")
        assert spec == EnvironmentSpec("gymnasium", "my_module:Mine-v0")
        assert describe(spec.id, "impala").observation_shape == (4,)
    finally:
        gymnasium.registry.pop("Mine-v0", None)
    with pytest.raises(UnknownEnvironmentError, match="no_such_module"):
        resolve("no_such_module:Mine-v0")


OWN_NAMES = """
import gymnasium, numpy
from gymnasium.spaces import Box, Discrete
class Own(gymnasium.Env):
    action_space = Discrete(2)
    def __init__(self, size):
        self.observation_space = Box(-1, 1, (size,), numpy.float32)
    def reset(self, seed=None, options=None):
        return numpy.zeros(self.observation_space.shape, numpy.float32), {}
    def step(self, action):
        return (self.reset()[0], 0.0, False, False, {})
for size, name in enumerate(NAMES, start=11):
    gymnasium.register(id=name, entry_point=Own, kwargs={"size": size})
"""
NAMES = (
    "Maze-v0", "maze-v0", "MAZE-v0", "Pong-v0", "Freeway", "pong", "my/Pong-v0", "Catch",
    "Breakout-v4", "Only-v0",
)  # fmt: skip


@pytest.mark.parametrize("emulator_first", [False, True])
def test_an_exact_id_wins_over_case_and_over_the_games(tmp_path, emulator_first):
    """In a process of its own: what ale-py registers, and when, is the point."""
    (tmp_path / "own_names.py").write_text(f"NAMES = {NAMES!r}\n{OWN_NAMES}")
    result = run_python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        + ("import ale_py\n" if emulator_first else "")
        + "from meta_impala.environments import describe, make, resolve\n"
        "resolve('own_names:Only-v0')\n"
        "make('Pong', 1, 'impala')\n"
        f"for name in {NAMES!r}:\n"
        "    print(describe(f'own_names:{name}', 'impala').observation_shape[0])\n"
        "print(resolve('Pong').kind, resolve('Freeway').kind, resolve('Catch').id)\n"
        "print(resolve('own_names:ONLY-v0').id, resolve('own_names:freeway').id)\n"
    )
    sizes = [str(size) for size in range(11, 11 + len(NAMES))]
    expected = "atari atari meta_impala/Catch-v0"
    assert result.stdout.splitlines() == [
        *sizes,
        expected,
        "own_names:Only-v0 own_names:Freeway",
    ], result.stderr
    assert "Overriding" not in result.stderr


def test_a_name_that_could_be_several_ids_is_refused_with_all_of_them(registered_ids):
    registered_ids("Twin-v0", "twin-v0")
    with pytest.raises(UnknownEnvironmentError, match="Twin-v0 or twin-v0 differ in case only"):
        resolve("TWIN-v0")
    assert resolve("twin-v0").id == "twin-v0"
    assert resolve("Twin-v0").id == "Twin-v0"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("freeway", "ALE/Freeway-v5"),
        ("pong", "ALE/Pong-v5"),
        ("catch", CATCH_ID),
        ("Patience", "meta_impala/Patience-v0"),
        ("minatar/breakout", "MinAtar/Breakout-v1"),
    ],
)
def test_a_short_name_is_fixed_whoever_registers_it(name, expected, registered_ids):
    registered_ids(name)
    assert resolve(name).id == expected


@pytest.fixture
def registered_ids():
    made = []

    def register(*names):
        for name in names:
            gymnasium.register(name, entry_point="gymnasium.envs.classic_control:CartPoleEnv")
            made.append(name)

    yield register
    for name in made:
        del gymnasium.registry[name]


@pytest.mark.parametrize(
    "name",
    ["no such:X-v0", "a b", "..up:X-v0", ".rel:X-v0", "os.path;x:X-v0", "a\u200b:X-v0", "x\0y", ":",
     "a::b", "", " ", "\n", "-v0", "a/b:c-v0", "\ufeffPong"],
)  # fmt: skip
def test_an_invalid_name_is_refused_and_imports_nothing(name):
    with pytest.raises(UnknownEnvironmentError) as refusal:
        resolve(name)
    assert "\n" not in str(refusal.value) and "\0" not in str(refusal.value)


@pytest.mark.parametrize(
    "statement",
    ["raise SystemExit('no licence')", "raise KeyboardInterrupt", "import sys; sys.exit(0)",
     "1 / 0", "import not_there_at_all", "def", "class E(BaseException): pass\nraise E('odd')",
     "import argparse; argparse.ArgumentParser().parse_args(['--x'])"],
)  # fmt: skip
def test_whatever_a_module_raises_when_imported_is_refused_in_one_line(
    statement, tmp_path, monkeypatch
):
    monkeypatch.setattr("signal.getsignal", lambda *_: None)  # as in a command that handles Ctrl-C
    (tmp_path / "module_that_raises.py").write_text(statement)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnknownEnvironmentError) as refusal:
        resolve("module_that_raises:X-v0")
    assert "module_that_raises:X-v0" in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("Pnog", "Pong"),
        ("Breakot", "Breakout"),
        ("PongNoFrameskip-v4", "Pong"),
        ("ALE/Pong-v4", "Pong"),
        ("Pong-v5", "Pong"),
        ("CartPole", "CartPole-v1"),
        ("Ctch", "Catch"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(name, nearest):
    with pytest.raises(UnknownEnvironmentError) as refusal:
        resolve(name)
    assert isinstance(refusal.value, ValueError)
    assert repr(name) in str(refusal.value)
    assert f"did you mean {nearest}" in str(refusal.value)


def test_a_name_without_similar_ones_is_refused_with_the_kinds_of_names():
    with pytest.raises(UnknownEnvironmentError, match=r"Pong or ALE/Pong-v5.*Catch.*Gymnasium"):
        resolve("xyzzyx")


def test_names_are_checked_without_importing_anything_heavy():
    result = run_python(
        "import sys\n"
        "from meta_impala.environments import ATARI_57, resolve\n"
        "for name in (*ATARI_57, 'Catch', 'ALE/Pong-v5'):\n"
        "    resolve(name)\n"
        "print([m for m in ('gymnasium', 'ale_py', 'tensorflow') if m in sys.modules])\n"
    )
    assert result.stdout == "[]\n", result.stderr


def test_no_environment_imports_tensorflow():
    result = run_python(
        "import sys\n"
        "from meta_impala.environments import describe\n"
        "for name in ('Catch', 'CartPole-v1', 'Pong'):\n"
        "    describe(name, 'impala')\n"
        "print([m for m in ('gymnasium', 'ale_py', 'tensorflow') if m in sys.modules])\n"
    )
    assert result.stdout == "['gymnasium', 'ale_py']\n", result.stderr


@pytest.mark.parametrize(
    ("name", "protocol", "num_actions"),
    [
        ("Pong", "impala", 6),
        ("MsPacman", "impala", 9),
        ("Surround", "impala", 5),
        ("UpNDown", "impala", 6),
        ("Defender", "machado", 18),
    ],
)
def test_describe_atari(name, protocol, num_actions):
    description = describe(name, protocol)
    assert description.observation_shape == (4, 84, 84)
    assert description.observation_dtype == np.uint8
    assert description.num_actions == num_actions
    assert description.action_repeat == 4


def test_describe_catch():
    description = describe("Catch", "impala")
    assert description.observation_shape == (10, 5)
    assert description.observation_dtype == np.float32
    assert description.num_actions == 3
    assert description.action_repeat == 1


def test_describe_refuses_what_cannot_be_used():
    with pytest.raises(UnsupportedEnvironmentError, match=r"Pendulum-v1.*continuous"):
        describe("Pendulum-v1", "impala")


def test_make_passes_everything_on_to_the_game():
    environment = make("pong", 2, "machado", num_threads=2, max_episode_frames=8)
    assert environment.num_envs == 2
    assert environment.num_actions == 18
    environment.reset(seed=0)
    environment.step(np.array([0, 0]))
    assert environment.step(np.array([0, 0])).truncations.all()


def test_best_play_of_catch_through_the_batch_earns_one_each_time():
    environment = make("Catch", 4, "impala")
    boards = environment.reset(seed=0)
    returns = []
    for _ in range(45):
        balls = boards[:, :-1].sum(axis=1).argmax(axis=1)
        paddles = boards[:, -1].argmax(axis=1)
        step = environment.step(1 + np.sign(balls - paddles))
        boards = step.observations
        returns += step.episode_returns[step.episode_ends].tolist()
        assert not step.truncations.any()
        assert (step.episode_frames[step.episode_ends] == 9).all()
    assert returns == [1.0] * (4 * 5)


@pytest.mark.parametrize("name", ["Pong", "Catch"])
def test_an_unknown_protocol_is_refused_for_every_environment(name):
    with pytest.raises(ValueError, match="impala, machado"):
        make(name, 1, "dqn")
    with pytest.raises(ValueError, match="impala, machado"):
        make_render(name, "dqn", seed=0)
