"""The explanations: what the experiments measure (ground truth) and what the sentences say."""

import dataclasses
import re

import numpy as np
import pytest

from meta_impala.illustrations import chain_experiments as experiments
from meta_impala.illustrations import explained_figure, explained_tables, explanations
from meta_impala.illustrations.prediction import Eta
from meta_impala.illustrations.settings import Settings, resolve
from meta_impala.illustrations.simulation import Simulation, columns_of, simulate

SWITCHES = {"episodes": 600, "seeds": 5, "meta_step_size": 0.1, "points": 20}


@pytest.fixture(scope="module", autouse=True)
def small_grid():
    patch = pytest.MonkeyPatch()
    patch.setattr(experiments, "STEP_SIZES", (0.05, 0.5))
    patch.setattr(experiments, "GRID", np.array([0.0, 0.5, 1.0]))
    yield
    patch.undo()


def evidence_for(example, **switches):
    settings = resolve(Settings(example=example, **(SWITCHES | switches)))
    return settings, explanations.gather(settings, simulate(settings))


@pytest.fixture(scope="module")
def discount():
    return evidence_for("discount", num_states=6)


@pytest.fixture(scope="module")
def bootstrap():
    return evidence_for("bootstrap", num_states=5)


def test_the_last_state_before_the_end_has_a_gamma(discount):
    _, evidence = discount
    run = evidence.indexing[5]
    assert run.arrived.shape == (5, 5)
    assert run.arrived[-1].mean() > 0.6
    assert np.all(run.arrived[0] == 0.5)
    assert np.all(run.left[-1] == 0.5)
    assert run.left[0].mean() < 0.3


def test_the_two_targets_of_a_bottleneck(bootstrap):
    settings, evidence = bootstrap
    first = evidence.targets["bootstrapped"].variance[0:4:2]
    second = evidence.targets["through"].variance[0:4:2]
    np.testing.assert_allclose(first, 1.0, rtol=0.02)
    np.testing.assert_allclose(second, 0.0, atol=1e-12)
    assert np.all(evidence.targets["learned"].variance[0:4:2] < 0.05)
    values = np.arange(5.0)
    bootstrapped, through = experiments.two_bottleneck_targets(settings, values)
    # r_i + v(aliased) and r_i − r_i + v(next bottleneck)
    np.testing.assert_allclose(bootstrapped.mean[0:4:2], [1, 3], atol=0.03)
    np.testing.assert_allclose(through.mean[0:4:2], [2, 4], atol=1e-12)


def test_the_moments_of_a_return():
    settings = resolve(Settings(example="discount"))
    found = experiments.targets(settings, Eta(np.ones(10), np.ones(10)), np.zeros(10))
    np.testing.assert_allclose(found.variance, [5, 5, 4, 4, 3, 3, 2, 2, 1, 1], rtol=0.03)
    np.testing.assert_allclose(
        found.mean, [0.5, 0.4, 0.4, 0.3, 0.3, 0.2, 0.2, 0.1, 0.1, 0], atol=0.05
    )
    left = dataclasses.replace(settings, indexing="left")
    gammas = np.array([0.0, *np.ones(9)])
    assert experiments.targets(left, Eta(gammas, np.ones(10)), np.zeros(10)).variance[0] < 1e-20
    assert experiments.targets(settings, Eta(gammas, np.ones(10)), np.zeros(10)).variance[0] > 4.5


def test_learned_gamma_beats_gamma_one_at_a_large_step(discount):
    _, evidence = discount
    sweep = evidence.sweep
    row = sweep.row_of(0.5)
    assert sweep.error("learned")[row] < 0.6 * sweep.error("ones")[row]
    # γ = λ = 1 without bootstrapping: variance α / (2 − α) Var g, over states 3 3 2 2 1 1.
    np.testing.assert_allclose(sweep.error("ones")[row], np.sqrt(2 * 0.5 / 1.5), rtol=0.05)
    np.testing.assert_allclose(
        sweep.error("ones")[sweep.row_of(0.05)], np.sqrt(2 * 0.05 / 1.95), rtol=0.1
    )


def test_the_best_of_the_grid_is_its_smallest(discount, bootstrap):
    for (settings, evidence), free in ((discount, 0), (bootstrap, 1)):
        sweep = evidence.sweep
        for row in range(len(sweep.step_sizes)):
            gamma, lambda_ = (
                int(np.flatnonzero(value == experiments.GRID)[0])
                for value in sweep.pairs["best"][row]
            )
            assert sweep.grid[row, gamma, lambda_] == sweep.grid[row].min()
            assert sweep.pairs["best_single"][row][1 - free] == 1.0
            line = sweep.grid[row, :, -1] if free == 0 else sweep.grid[row, -1, :]
            best = experiments.GRID[line.argmin()]
            assert sweep.pairs["best_single"][row][free] == best
        assert settings.learned == ("gamma", "lambda")[free]


def test_a_point_of_the_grid_is_an_ordinary_run(discount):
    settings, evidence = discount
    columns = columns_of(
        dataclasses.replace(settings, inner_step_size=0.05), 1, gammas=[0.5], lambdas=[0.0]
    )
    history = Simulation(dataclasses.replace(settings, points=10), columns, learn=False).run()
    expected = np.sqrt(history.squared_errors[-5:].mean())
    assert evidence.sweep.grid[0, 1, 0] == pytest.approx(expected, rel=1e-9)


def test_lambda_one_cannot_be_beaten_when_the_return_has_no_noise(bootstrap):
    _, evidence = bootstrap
    sweep, other = evidence.sweep, evidence.other_sweep
    row = sweep.row_of(0.5)
    assert sweep.error_of_odd_states("ones")[row] == pytest.approx(0.0, abs=1e-12)
    assert sweep.error("learned")[row] > 0.99 * sweep.error("ones")[row]
    # With a random last reward there is something to gain.
    assert other.error("learned")[row] < 0.9 * other.error("ones")[row]


def test_v_is_learned_as_fast_as_the_step_size_says(bootstrap):
    _, evidence = bootstrap
    ones = evidence.speed.errors["ones"]
    assert ones[0] == pytest.approx(5.0)
    np.testing.assert_allclose(ones[1:3], [2.5, 1.25], rtol=0.1)
    assert evidence.speed.settled["learned"] > evidence.speed.settled["ones"]


@pytest.mark.parametrize("example", ["discount", "bootstrap"])
def test_every_question_has_a_sentence_with_its_number(example, request):
    settings, evidence = request.getfixturevalue(example)
    text = explanations.sentences(settings, evidence)
    headings = re.findall(r"^\*\*(.+?)\.?\*\*", text, re.MULTILINE)
    assert len(headings) == 6
    row = evidence.sweep.row_of(0.5)
    for number in (
        f"{evidence.sweep.error('learned')[row]:.3f}",
        f"{evidence.sweep.error('ones')[row]:.3f}",
        f"after {evidence.speed.settled['learned']} episodes",
        f"{evidence.targets['learned'].variance[0]:.3f}",
    ):
        assert number in text or example == "bootstrap" and number.startswith("0.0")
    if example == "discount":
        assert "γ(5) gets a value though state 5's successor is terminal" in text
    assert "nan" not in text


def test_the_tables_hold_the_numbers(tmp_path, bootstrap):
    settings, evidence = bootstrap
    explained_tables.write(tmp_path, settings, evidence)
    lines = {path.name: path.read_text("utf-8").splitlines() for path in tmp_path.glob("*.csv")}
    assert sorted(lines) == [
        "explained_errors.csv",
        "explained_indexing.csv",
        "explained_speed.csv",
        "explained_step_size.csv",
        "explained_targets.csv",
    ]
    assert len(lines["explained_step_size.csv"]) == 1 + 2 * 5 * 5
    assert len(lines["explained_errors.csv"]) == 1 + 2 * 2 * (4 + 9)
    learned = evidence.sweep.error("learned")[1]
    assert f"zero,0.5,learned,,,{learned:.6g}" in lines["explained_errors.csv"]


@pytest.mark.parametrize("example", ["discount", "bootstrap"])
def test_the_figure_has_six_panels(example, request, monkeypatch):
    figures = []
    monkeypatch.setattr(explained_figure, "save_figure", lambda drawn, path: figures.append(drawn))
    settings, evidence = request.getfixturevalue(example)
    explained_figure.draw(None, settings, evidence)
    panels = figures[0].axes
    assert len(panels) == 6
    for panel in panels:
        assert panel.get_xlabel() and panel.get_ylabel() and panel.get_title()
    lines = {line.get_label(): line for line in panels[3].get_lines()}
    np.testing.assert_allclose(lines["learned"].get_xdata(), [0.05, 0.5])
    np.testing.assert_allclose(lines["learned"].get_ydata(), evidence.sweep.error("learned"))
    np.testing.assert_allclose(lines["γ = λ = 1"].get_ydata(), evidence.sweep.error("ones"))


@pytest.mark.parametrize(
    "switches",
    [
        {"example": "discount", "num_states": 2, "episodes": 1},
        {
            "example": "discount",
            "noise": 0.0,
            "theta": "reset",
            "indexing": "left",
            "num_states": 4,
        },
        {"example": "bootstrap", "num_states": 3, "aliasing": "all", "last_reward": "random"},
    ],
)
def test_odd_settings_are_explained_too(switches):
    example = switches.pop("example")
    settings, evidence = evidence_for(example, **{"episodes": 20, "seeds": 1, **switches})
    assert "The other indexing" in explanations.sentences(settings, evidence)
