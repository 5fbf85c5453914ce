"""What a suite costs: what is left, by table, by a speed that is given or measured."""

import dataclasses

import pytest

from meta_impala.config import Config, presets
from meta_impala.config.validation import resolve_network
from meta_impala.experiments import suite as suite_file
from meta_impala.experiments import suite_cost
from meta_impala.networks.torsos import TORSOS

EVALUATION = {"episodes": 5, "seed": 1, "num_envs": 1}
SUITE = """
title = "A title"
games = ["Catch"]
seeds = [1, 2]
settings = { total_frames = 1_000_000, num_actors = 1, batch_size = 8 }
variants = [
  { name = "plain", settings = { meta_parameters = "none" } },
  { name = "meta" },
]
"""


@pytest.fixture
def runs(tmp_path):
    path = tmp_path / "suite.toml"
    path.write_text(SUITE)
    return suite_file.expand(suite_file.read(path), path, tmp_path / "out")


def _cost(runs, **more):
    return suite_cost.cost(runs, EVALUATION, **({"parallel": 2, "cores": 4} | more))


def test_the_remaining_frames_and_games_of_a_suite(runs):
    runs[0].folder.prepare()
    runs[0].folder.save_config(runs[0].config)
    runs[0].folder.write_status("stopped", 400_000)
    cost = _cost(runs)
    assert cost.runs["not started"] == 3 and cost.runs["unfinished"] == 1
    assert (cost.frames, cost.frames_left) == (4_000_000, 3_600_000)
    assert cost.games_left == 20


def test_by_the_table_plain_and_meta_learned_runs_have_prices_of_their_own(runs):
    plain, meta, _ = suite_cost.PRICES["catch", "mlp"]
    prices = [suite_cost.price_of(run.config) for run in runs]
    assert prices == pytest.approx([plain, meta, plain, meta])
    cost = _cost(runs)
    training = 2 * (plain + meta) * 1e6 / 1e3 / 3600
    starts = 4 * suite_cost.START_SECONDS[True] / 3600
    assert cost.core_hours == pytest.approx(training + starts, rel=1e-3)
    assert cost.frames_per_second is None and not cost.is_measured
    # Two at a time keep an actor and a learner each busy.
    assert cost.hours == pytest.approx(cost.core_hours / 4, rel=1e-6)
    assert _cost(runs, parallel=1).hours == pytest.approx(cost.core_hours / 2, rel=1e-6)
    assert _cost(runs, cores=2).hours == pytest.approx(cost.core_hours / 2, rel=1e-6)
    assert _cost(runs, is_preloaded=False).core_hours > cost.core_hours


def test_by_a_speed_that_is_given_or_measured(runs):
    given = _cost(runs, frames_per_second=100.0)
    assert (given.frames_per_second, given.is_measured) == (100.0, False)
    assert given.hours == pytest.approx(4e6 / 100 / 2 / 3600, rel=1e-2)
    runs[0].folder.prepare()
    runs[0].folder.metrics_path.write_text("frames,frames_per_second\n1,50\n2,70\n3,60\n")
    measured = _cost(runs)
    assert (measured.frames_per_second, measured.is_measured) == (60.0, True)
    assert _cost(runs, frames_per_second=100.0).frames_per_second == 100.0


@pytest.mark.parametrize(
    ("environment", "kind"),
    [
        ("Pong", "atari"),
        ("ALE/Breakout-v5", "atari"),
        ("Catch", "catch"),
        ("CartPole-v1", "features"),
        ("MinAtar/Breakout", "minatar"),
    ],
)
def test_the_kind_of_an_environment(environment, kind):
    assert suite_cost.kind_of(environment) == kind


@pytest.mark.parametrize(
    ("environment", "shape"),
    [
        ("Pong", (84, 84, 4)),
        ("MinAtar/Seaquest", (10, 10, 10)),
        ("Catch", (10, 5, 1)),
        ("CartPole-v1", (4,)),
    ],
)
def test_auto_costs_what_the_network_costs_that_it_will_be(environment, shape):
    auto = dataclasses.replace(Config(), environment=environment, network="auto")
    chosen = resolve_network(auto, shape)
    assert suite_cost.network_of(auto) == chosen.network
    assert suite_cost.price_of(auto) == suite_cost.price_of(chosen)
    assert (suite_cost.kind_of(environment), chosen.network) in suite_cost.PRICES


@pytest.mark.parametrize("network", TORSOS)
def test_every_network_of_the_package_has_a_price_and_the_size_of_its_checkpoint(network):
    assert network in {name for _, name in suite_cost.PRICES}
    assert network in suite_cost.CHECKPOINT_MB


def test_bigger_networks_cost_more_in_time_and_disk(runs):
    def of(**settings):
        config = dataclasses.replace(runs[0].config, environment="ALE/Pong-v5", **settings)
        run = dataclasses.replace(runs[0], config=config)
        cost = _cost([run])
        return cost.core_hours, cost.disk_gb

    shallow, deep, lstm = (
        of(network="shallow"),
        of(network="deep"),
        of(network="deep", core="lstm"),
    )
    assert 2 * shallow[0] < deep[0] < lstm[0]
    assert shallow[1] < deep[1]
    assert of(network="auto")[0] == shallow[0]


def test_more_at_a_time_than_runs_are_left_is_no_faster(runs):
    (one,) = runs[:1]
    assert _cost([one], parallel=8, frames_per_second=1000.0).hours == pytest.approx(
        _cost([one], parallel=1, frames_per_second=1000.0).hours
    )
    assert _cost([one], parallel=8, cores=16).hours == _cost([one], parallel=1, cores=16).hours


def test_more_updates_and_larger_meta_batches_cost_more(runs):
    def price(**settings):
        return suite_cost.price_of(dataclasses.replace(runs[1].config, **settings))

    plain, meta, measured_at = suite_cost.PRICES["catch", "mlp"]
    assert price() == pytest.approx(meta) and measured_at == 1.0  # B' = 8, B = 8
    assert price(batch_size=32) == pytest.approx(plain + (meta - plain) / 2.5)
    assert price(sample_reuse=3) == pytest.approx(3 * meta)
    assert price(meta_objective="bootstrapped", bootstrap_steps=4) == pytest.approx(
        meta + 4 * plain
    )


@pytest.mark.parametrize(
    ("preset", "settings", "row"),
    [
        ("catch", {}, ("catch", "mlp")),
        ("cartpole", {}, ("features", "mlp")),
        ("study", {"environment": "MinAtar/Breakout"}, ("minatar", "minatar")),
        ("xu2018", {"network": "deep", "core": "none"}, ("atari", "deep")),
    ],
)
def test_what_was_measured_costs_what_was_measured(preset, settings, row):
    price = suite_cost.price_of(presets.preset(preset, **settings))
    assert price == pytest.approx(suite_cost.PRICES[row].meta)


@pytest.mark.parametrize(
    ("variant", "settings", "factor"),
    [
        (0, {}, 1.0),
        (1, {}, 1.0),
        (1, {"batch_size": 32, "sample_reuse": 3}, 1.0),
        (1, {"meta_objective": "bootstrapped", "bootstrap_steps": 4}, 1.0),
        (1, {"core": "lstm"}, suite_cost._CORE),
    ],
)
def test_games_that_are_played_while_training_cost_too(runs, variant, settings, factor):
    """Whatever was learned, and by how many updates: playing needs the network alone."""
    config = dataclasses.replace(runs[variant].config, total_frames=1_000_000, **settings)
    evaluated = dataclasses.replace(config, evaluation_frames=100_000, evaluation_episodes=50)
    without, with_games = (
        _cost([dataclasses.replace(runs[variant], config=of)]).core_hours
        for of in (config, evaluated)
    )
    plain = factor * suite_cost.PRICES["catch", "mlp"].plain
    assert with_games - without == pytest.approx(10 * 50 * 9 * 0.5 * plain / 1e3 / 3600)
