"""The figures: what is drawn is what was measured, and axes say what they show."""

import numpy as np
import pytest

from meta_impala.illustrations import chain_figure as figure
from meta_impala.illustrations import chain_results as results
from meta_impala.illustrations.chain_drawing import COLOURS
from meta_impala.illustrations.settings import Settings, resolve


@pytest.fixture
def saved(monkeypatch):
    figures = []
    monkeypatch.setattr(figure, "save_figure", lambda drawn, path: figures.append(drawn))
    return figures


def random_eta(settings, points=4):
    random = np.random.default_rng(0)
    return random.uniform(size=(points, settings.num_states, settings.seeds))


def test_the_figure_has_the_paper_s_parts(saved):
    settings = resolve(Settings(example="discount", seeds=12, episodes=300))
    eta = random_eta(settings)
    episodes = np.array([0, 100, 200, 300])
    figure.draw_example(None, settings, episodes, eta)
    process, curves, violins = saved[0].axes
    assert process.get_position().y0 > curves.get_position().y1
    assert {text.get_text() for text in process.texts} >= {str(state) for state in range(1, 11)}

    assert "episodes" in curves.get_xlabel()
    assert "dimensionless" in curves.get_ylabel()
    lines = [line for line in curves.get_lines() if len(line.get_xdata()) == 4]
    assert len(lines) == 10
    for state, line in enumerate(lines):
        np.testing.assert_allclose(line.get_ydata(), eta[:, state].mean(axis=-1))
        kind = "signal" if state % 2 == 0 else "noise"
        assert line.get_color() == COLOURS[kind]
    band = curves.collections[3].get_paths()[0].vertices
    low, high = np.percentile(eta[:, 3], results.BAND, axis=-1)
    assert results.BAND == (20, 80)
    for episode, bottom, top in zip(episodes, low, high, strict=True):
        heights = band[band[:, 0] == episode, 1]
        assert heights.min() == pytest.approx(bottom)
        assert heights.max() == pytest.approx(top)

    assert violins.get_xlabel() and violins.get_ylabel()
    labels = [label.get_text() for label in violins.get_xticklabels()]
    assert labels == ["1", "3", "5", "7", "9", "2", "4", "6", "8", "10"]
    titles = " ".join(text.get_text() for text in violins.texts)
    assert "odd states: signal" in titles and "even states: noise" in titles
    for body, state in zip(violins.collections[::2], (0, 2, 4, 6, 8, 1, 3, 5, 7, 9), strict=True):
        heights = body.get_paths()[0].vertices[:, 1]
        assert heights.min() >= eta[-1, state].min() - 1e-9
        assert heights.max() <= eta[-1, state].max() + 1e-9


@pytest.mark.parametrize(
    "switches",
    [
        {"example": "bootstrap", "branches": 9, "num_states": 31},
        {"example": "bootstrap", "num_states": 3, "last_reward": "random", "seeds": 1},
        {"example": "discount", "num_states": 40, "indexing": "left"},
        {"example": "discount", "num_states": 2},
    ],
)
def test_every_size_can_be_drawn(switches, tmp_path):
    settings = resolve(Settings(**{"seeds": 2, **switches}))
    figure.draw_example(tmp_path / "f.png", settings, np.arange(4), random_eta(settings))
    assert (tmp_path / "f.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["f.png"]


def test_the_caption_fits_the_indexing():
    for example in ("discount", "bootstrap"):
        arrived = figure.caption(resolve(Settings(example=example)))
        left = figure.caption(resolve(Settings(example=example, indexing="left")))
        assert "arrived in" in arrived and "state 1" in arrived
        assert "one state earlier" in left
