"""An agent in one file: round trip, what is in it, refusals, and the one that ships (learning)."""

import json
import pathlib
import zipfile

import numpy as np
import pytest
from support.helpers import make_agent, perturb

from meta_impala.config import AgentSettings, resolve_network
from meta_impala.environments import registry
from meta_impala.errors import UserError
from meta_impala.evaluation.games import GamePolicy, play_games
from meta_impala.evaluation.starts import Start, game_seeds
from meta_impala.storage.trained_agent import (
    TrainedAgent,
    load_agent_file,
    save_agent,
    with_eta,
)
from meta_impala.storage.trained_run import read_agent_file

ROOT = pathlib.Path(__file__).parents[2]
# Agents of Pong: version 0.1's, and the one that comes with the program.
OLDER, SHIPPED = ROOT / "testdata/pong_agent.npz", ROOT / "meta_impala/agents/pong.npz"


@pytest.fixture(scope="module")
def trained():
    agent = make_agent(core="lstm", core_size=4)
    perturb(agent, 0)
    snapshot = agent.learner.snapshot()._replace(version=7)
    return agent, TrainedAgent(agent.network, snapshot, 1234, "frames-1234")


@pytest.fixture
def path(trained, tmp_path):
    agent, exported = trained
    path = tmp_path / "agent.npz"
    save_agent(path, exported, agent.config, agent.description)
    return path


def _rewrite(path, **changes):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    arrays |= changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


def _json(path, name):
    with np.load(path) as file:
        return json.loads(str(file[name]))


def test_an_agent_is_loaded_as_it_was_saved(trained, path):
    agent, exported = trained
    read = read_agent_file(path)
    assert read.config == agent.config
    assert (read.observation_shape, read.num_actions) == ((3, 2), 3)
    loaded = load_agent_file(path, read.config.part(AgentSettings), agent.description)
    assert (loaded.frames, loaded.snapshot.version) == (1234, 7)
    assert loaded.checkpoint == "frames-1234"
    for ours, theirs in zip(loaded.snapshot.parameters, exported.snapshot.parameters, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(loaded.snapshot.eta.values, exported.snapshot.eta.values)
    assert loaded.digest() == exported.digest()
    variables = loaded.network.trainable_variables
    for variable, tensor in zip(variables, exported.snapshot.parameters, strict=True):
        np.testing.assert_array_equal(variable, tensor)


def test_the_digest_tells_agents_apart(trained):
    _, exported = trained
    other = with_eta(exported.snapshot, 0.5, 0.5)
    assert exported._replace(snapshot=other).digest() != exported.digest()


def test_an_agent_file_has_weights_eta_and_config_only(trained, path):
    agent, _ = trained
    with np.load(path, allow_pickle=False) as file:
        names = set(file.files)
        parameters = sorted(name for name in names if name.startswith("parameters/"))
        assert names - set(parameters) == {"about", "config", "eta"}
        assert len(parameters) == len(agent.network.trainable_variables)
        assert all(file[name].dtype == np.float32 for name in parameters)


def test_settings_that_came_later_have_the_value_they_had_then_and_others_are_refused(path):
    config = _json(path, "config")
    del config["eta_embedding_place"]
    _rewrite(path, config=np.array(json.dumps(config)))
    assert read_agent_file(path).config.eta_embedding_place == "heads"
    _rewrite(path, config=np.array(json.dumps(config | {"entropy_costs": 3})))
    with pytest.raises(UserError, match=r"unknown keys: entropy_costs \(did you mean entropy_cost"):
        read_agent_file(path)
    del config["entropy_cost"]
    _rewrite(path, config=np.array(json.dumps(config)))
    with pytest.raises(UserError, match="missing keys: entropy_cost"):
        read_agent_file(path)


def test_invalid_or_unsuitable_agents_are_refused_in_one_line(trained, path, tmp_path):
    agent, _ = trained
    with pytest.raises(UserError, match="there is no such file"):
        read_agent_file(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("not a zip")
    with pytest.raises(UserError, match="is not an exported agent"):
        read_agent_file(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    with pytest.raises(UserError, match="is not an exported agent"):
        read_agent_file(tmp_path / "other.npz")
    wider = _json(path, "config") | {"mlp_sizes": "16"}
    before = path.read_bytes()
    _rewrite(path, config=np.array(json.dumps(wider)))
    with pytest.raises(UserError, match="do not fit the network"):
        load_agent_file(path, read_agent_file(path).config.part(AgentSettings), agent.description)
    path.write_bytes(before)
    _rewrite(path, about=np.array(json.dumps(_json(path, "about") | {"format": "other"})))
    with pytest.raises(UserError, match='has the format "other"'):
        read_agent_file(path)
    path.write_bytes(before)
    _rewrite(path, config=np.array("[]"))
    with pytest.raises(UserError, match="must hold one JSON object"):
        read_agent_file(path)
    path.write_bytes(before)
    about = _json(path, "about")
    del about["updates"]
    _rewrite(path, about=np.array(json.dumps(about)))
    with pytest.raises(UserError, match="is damaged"):
        load_agent_file(path, read_agent_file(path).config.part(AgentSettings), agent.description)
    path.write_bytes(before[: len(before) // 2])
    with pytest.raises(UserError) as error:
        read_agent_file(path)
    assert "\n" not in str(error.value)


def test_the_name_of_a_checkpoint_is_printable(trained, path):
    agent, _ = trained
    about = _json(path, "about")
    _rewrite(path, about=np.array(json.dumps(about | {"checkpoint": "frames-1\x1b]0;x\n\x07"})))
    settings = read_agent_file(path).config.part(AgentSettings)
    assert (
        load_agent_file(path, settings, agent.description).checkpoint == "frames-1\\x1b]0;x \\x07"
    )


def test_objects_are_never_unpickled(path):
    with pytest.raises(UserError, match="is not an exported agent"):
        _rewrite(path, about=np.array([print], dtype=object))
        read_agent_file(path)


def test_a_folder_that_cannot_be_written_leaves_nothing_behind(trained, tmp_path):
    agent, exported = trained
    (tmp_path / "agent.npz").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        save_agent(tmp_path / "agent.npz", exported, agent.config, agent.description)
    assert [path.name for path in tmp_path.iterdir()] == ["agent.npz"]


@pytest.mark.parametrize(
    ("path", "evaluation", "frames"),
    [
        pytest.param(
            OLDER,
            "testdata/pong_agent_evaluation.json",
            12_800_000,
            id="older",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            SHIPPED, "testdata/results/pong_agent_evaluation.json", 3_000_000, id="shipped"
        ),
    ],
)
def test_agents_of_pong_win_a_game(path, evaluation, frames):
    assert path.stat().st_size < 4_000_000
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
    config = read_agent_file(path).config
    assert config.environment == "ALE/Pong-v5"
    description = registry.describe(config.environment, config.protocol)
    config = resolve_network(config, description.observation_shape)
    assert config.network == "shallow"
    agent = load_agent_file(path, config.part(AgentSettings), description)
    assert agent.frames == pytest.approx(frames, rel=0.001)
    recorded = json.loads((ROOT / evaluation).read_text())
    assert recorded["agent_digest"] == agent.digest()
    assert len(recorded["returns"]) == 200 and recorded["mean"] > 0
    environment = registry.make(config.environment, 1, config.protocol, min_noops=1)
    (game,) = play_games(
        GamePolicy(agent.network, config.part(AgentSettings), description, 1),
        agent.snapshot,
        [environment],
        [(0, Start(game_seeds(1, 0)[0]))],
        seed=1,
    )
    environment.close()
    assert game.episode_return > 0
