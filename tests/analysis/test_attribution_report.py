"""The report of samples of a meta-gradient (ground truth: small numbers worked by hand)."""

import json

import numpy as np
import pytest

from meta_impala.algorithm.attribution import SPLIT_PLACES
from meta_impala.algorithm.objectives import PLACES
from meta_impala.analysis.explanation import attribution_figure, attribution_text
from meta_impala.analysis.explanation import attribution_report as reporting
from meta_impala.analysis.explanation import samples as sampling
from meta_impala.analysis.explanation.samples import ITSELF, LATER, NEXT, OTHERS, Sample
from meta_impala.config import Config, resolve
from meta_impala.errors import UserError
from meta_impala.storage.json_files import json_document


def test_an_estimate_is_mean_standard_error_and_count():
    found = reporting.estimate([1.0, 2.0, float("nan"), 6.0])
    assert found == (3.0, pytest.approx(np.sqrt(7.0 / 3.0)), 3)
    assert found.t == pytest.approx(3.0 / np.sqrt(7.0 / 3.0))
    assert reporting.estimate([2.0]) == (2.0, None, 1)
    assert reporting.estimate([float("nan")]) == (None, None, 0)
    assert reporting.estimate([1.0, 1.0]).t is None, "no error, no t"


@pytest.mark.parametrize(
    ("pushes", "words"),
    [
        ([1.0, 2.0, 3.0, 2.0], "γ up: 4 of 4 batches, t = 4.9"),
        ([-1.0, -2.0, -3.0, -2.0], "γ down: 4 of 4 batches, t = -4.9"),
        ([-9.0, 2.0, 3.0, 2.0], "γ in no clear direction (mean down: 1 of 4 batches, t = -0.2)"),
        ([-1.0, 1.0], "γ nowhere: its mean meta-gradient is zero"),
        ([0.0, 0.0], "γ nowhere: its mean meta-gradient is zero"),
        ([1.0, 1.0], "γ in no clear direction (mean up: 2 of 2 batches, t = –)"),
    ],
)
def test_the_direction_of_a_meta_parameter_in_words(pushes, words):
    pushes = np.array(pushes)
    heading = reporting.Heading(
        0.99, reporting.estimate(pushes), int((pushes > 0).sum()), int((pushes < 0).sum())
    )
    assert attribution_text.heading_in_words("gamma", heading) == words


def _samples(learned=2, heads=0):
    """Three updates whose pushes are 1, 2, 3 times (3, −5) in all; the first T = 2 states."""
    samples = []
    for size in (1.0, 2.0, 3.0):
        by_place = np.zeros([len(SPLIT_PLACES), 2])
        by_place[0], by_place[1] = [-4.0 * size, size], [size, 4.0 * size]
        by_time = np.stack([by_place[:2] * 0.75, by_place[:2] * 0.25], axis=1)
        gradient = by_place.sum(axis=0)[:learned]
        pairs = dict.fromkeys(sampling.PAIRS[:-1], 0.1 * size) | {(ITSELF, NEXT): 0.3 * size}
        samples.append(
            Sample(
                by_place=by_place[:, :learned],
                by_time=by_time[..., :learned],
                meta_loss=0.5,
                meta_gradients={
                    ITSELF: gradient, NEXT: -gradient, LATER: 2 * gradient, OTHERS: gradient,
                },
                cosines=pairs,
                cosine_with_last=float("nan") if size == 1.0 else 0.4,
                sensitivity=7.0,
                gradient_norm=80.0,
                clip_coefficient=0.5,
                eta=np.array([0.98, 0.9][:learned]),
                of_heads=np.array([[-size, 0.0]])[:heads, :learned],
                eta_of_heads=np.array([[0.7, 0.6]])[:heads, :learned],
            )
        )  # fmt: skip
    return samples


def _config(**settings):
    return resolve(Config(num_actors=4, **({"envs_per_actor": 16} | settings)))


def test_the_numbers_of_a_report_by_hand():
    result = reporting.report(_config(), _samples())
    gamma = result.headings["gamma"]
    assert gamma == (0.98, (6.0, pytest.approx(3 / np.sqrt(3)), 3), 3, 0)
    assert result.headings["lambda"].push.mean == pytest.approx(-10.0)
    assert result.by_place["gamma"]["value targets"].mean == 8.0
    assert result.by_place["gamma"]["policy advantages"].mean == -2.0
    assert [p.mean for p in result.by_time["gamma"]["value targets"]] == [6.0, 2.0]
    assert result.by_meta_batch[NEXT]["gamma"].mean == -6.0
    assert result.by_meta_batch[LATER]["gamma"].mean == 12.0
    assert result.open_places == PLACES[:2]
    pairs = {a.pair: a for a in result.agreements}
    assert pairs[f"{ITSELF}, {NEXT}"].directions.mean == pytest.approx(0.6)
    assert pairs[f"{ITSELF}, {NEXT}"].meta_gradients.mean == pytest.approx(-1.0)
    assert pairs[f"{NEXT}, {LATER}"].meta_gradients.mean == pytest.approx(-1.0)
    consecutive = result.agreements[-1]
    assert consecutive.directions == (pytest.approx(0.4), pytest.approx(0.0), 2)
    assert consecutive.meta_gradients.mean == pytest.approx(1.0)
    assert result.excess.mean == pytest.approx(0.4)
    assert json.loads(json_document(reporting.to_json(result)))["by_place"]


def test_the_direction_of_the_eta_of_an_auxiliary_head():
    config = _config(auxiliary_heads=1, eta_embedding_size=0)
    result = reporting.report(config, _samples(heads=1))
    assert list(result.headings_of_heads) == ["gamma_head_2", "lambda_head_2"]
    assert result.headings_of_heads["gamma_head_2"].push.mean == pytest.approx(2.0)
    text = attribution_text.text(config, "a run", 0.1, result)
    assert "- Of head 2: γ up: 3 of 3 batches, t = 3.5. Now 0.7000; push +2" in text
    assert reporting.to_json(result)["heading"]["lambda_head_2"]["value"] == pytest.approx(0.6)


def test_the_text_names_what_is_not_shown():
    config = _config(meta_parameters="lambda", trace_decay=0.9)
    text = attribution_text.text(config, "a run", 0.1, reporting.report(config, _samples(1)))
    assert (
        "## Where λ is heading" in text
        and "γ" not in text.split("## Where λ")[1].split("## Where in")[0]
    )
    assert "has a trace (μ = 0.9)" in text
    assert "sign agreement of dJ'/dx" in text
    config = _config(inner_steps=3)
    text = attribution_text.text(config, "a run", 0.1, reporting.report(config, _samples()))
    assert "learns η through 3 updates at a time" in text
    config = _config(meta_parameter_scope="state")
    text = attribution_text.text(config, "a run", 0.1, reporting.report(config, _samples()))
    assert "those of the bias of x" in text and "on average over states" in text
    assert "effective horizon 1/(1−γ) = 50 agent steps" in text
    assert "agrees with τ more than other games do" in text  # 0.2 a step, t = 3.5
    assert "In training none of τ' continues games of τ: 64 environments" in text


def test_the_figure_shows_the_batches_that_are_finite(tmp_path):
    one, two, three = _samples()
    broken = one._replace(by_place=one.by_place * float("nan"))
    result = reporting.report(_config(), [broken, two, three])
    scales = attribution_figure.scales_of(result)
    assert scales == {"gamma": pytest.approx(7.5), "lambda": pytest.approx(12.5)}
    attribution_figure.draw(tmp_path / "explain.png", "a run", result)
    assert (tmp_path / "explain.png").stat().st_size > 10_000


def test_batches_that_are_not_finite_are_left_out_and_none_at_all_is_one_line():
    nan = float("nan")
    one, two, three = _samples()
    broken = one._replace(by_place=one.by_place * nan, eta=one.eta * nan)
    result = reporting.report(_config(), [broken, two, three])
    assert result.headings["gamma"].value == pytest.approx(0.98)
    assert result.headings["gamma"].push.batches == 2
    assert result.open_places == PLACES[:2], "what is not finite opens no place"
    numbers = json.loads(json_document(reporting.to_json(result)))
    assert numbers["push_per_batch"] == {"gamma": [None, 6.0, 9.0], "lambda": [None, -10.0, -15.0]}
    endless = one._replace(by_place=one.by_place.copy())
    endless.by_place[0, 0] = -float("inf")
    heading = reporting.report(_config(), [endless, two, three]).headings["gamma"]
    assert (heading.up, heading.down, heading.push.batches) == (2, 0, 2)
    with pytest.raises(UserError, match="finite in none of the batches"):
        reporting.report(_config(), [broken, broken])
    # η of no batch, as where it belongs to states that are not finite: not known, and JSON.
    unknown = [sample._replace(eta=sample.eta * nan) for sample in (two, three)]
    result = reporting.report(_config(), unknown)
    numbers = json.loads(json_document(reporting.to_json(result)))
    assert numbers["heading"]["gamma"]["value"] is None
