"""What the trainer says at its start, as text."""

import dataclasses
import pathlib

import pytest

from meta_impala import start_banner
from meta_impala.config import Config, resolve
from meta_impala.environments import Description

PONG = Description((84, 84, 4), "uint8", 6, 4, game="pong")
FOLDER = pathlib.Path("/runs/pong")


def lines(frames=0, **settings):
    config = resolve(Config(**{"network": "shallow", "num_actors": 2, **settings}))
    return "\n".join(
        start_banner.lines(
            config, PONG, FOLDER, num_parameters=1_234_567, device="CPU:0", frames=frames
        )
    )


def test_the_banner_names_every_part_of_a_run():
    text = lines(envs_per_actor=32)
    for part in (
        "training on Pong for 200,000,000 frames in /runs/pong",
        "observations 84×84×4, 6 actions",
        "shallow, 1,234,567 parameters, on CPU:0",
        "B = 32 unrolls of T = 20 steps, B' = 8 for the meta-gradient",
        "2 threads × 32 environments",
        "gamma and lambda, by the meta-gradient",
        "a row of metrics.csv after every 50,000 frames, some also here",
    ):
        assert part in text
    assert "continuing /runs/pong from 5,000 frames" in lines(frames=5000)


@pytest.mark.parametrize(
    ("settings", "learned"),
    [
        ({"meta_parameters": "none", "gamma": 0.98}, "none: gamma 0.98, lambda 1 are fixed"),
        ({"meta_parameters": "gamma"}, "gamma, by the meta-gradient"),
        ({"eta_schedule": "random"}, "none: gamma and lambda are random"),
        (
            {
                "eta_schedule": "replay",
                "eta_schedule_file": "x",
                "meta_parameters": "gamma,lambda,rho_clip",
            },
            "none: gamma, lambda and rho_clip are replayed",
        ),
    ],
)
def test_the_banner_says_what_is_learned(settings, learned):
    text = lines(**settings)
    assert learned in text
    assert ("for the meta-gradient" in text) == ("by the" in learned)


def test_only_a_long_run_gets_a_hint(monkeypatch):
    monkeypatch.setattr(start_banner, "processors", lambda: 2)
    deep = resolve(Config(network="deep", num_actors=2))
    hint = start_banner.hint(deep, PONG, 0)
    assert hint.startswith("200,000,000 frames take about 3 days with the 2 processors here")
    assert "--preset=laptop" in hint
    elsewhere = start_banner.hint(deep, dataclasses.replace(PONG, game=None), 0)
    assert "a smaller --total_frames" in elsewhere and "--preset" not in elsewhere  # it is Atari's
    assert start_banner.hint(deep, PONG, 199_000_000) == ""
    monkeypatch.setattr(start_banner, "processors", lambda: 512)
    assert start_banner.hint(deep, PONG, 0) == ""


def test_a_target_on_a_part_of_a_batch_is_told():
    bootstrapped = {"meta_objective": "bootstrapped"}
    text = start_banner.short_target(resolve(Config(**bootstrapped)))
    assert text.startswith("--meta_batch_size=8: ") and "8 of 32" in text
    for settings in (
        {},
        bootstrapped | {"meta_batch_size": 32},
        bootstrapped | {"meta_parameters": "none"},
    ):
        assert start_banner.short_target(resolve(Config(**settings))) == ""
