"""Ground truth: a fit of the model's own measurements recovers it; its limits, by hand."""

import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys

import pytest
from support.command_helpers import run_tool

from meta_impala.benchmarks import scaling
from meta_impala.benchmarks.scaling import Cluster, Model, Window
from meta_impala.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
MODEL = Model(
    actor_ms=0.5,
    unroll_ms=4.0,
    version_ms=2.0,
    wait_ms_per_actor=0.001,
    ray_ms=1.0,
    ray_idle=0.05,
    bytes_per_step=100.0,
    weights_bytes=1e6,
    steps_per_unroll=320,
    unroll_length=20,
)


def _window(actors: int, nodes: int, unrolls: int, versions: int) -> Window:
    """What `MODEL` would have measured in 10 s."""
    steps = 320 * unrolls
    return Window(
        actors=actors,
        nodes=nodes,
        seconds=10.0,
        unrolls=unrolls,
        agent_steps=steps,
        versions=versions,
        actor_cpu=0.5e-3 * steps,
        receiver_cpu=4e-3 * unrolls + 2e-3 * versions + 0.02 * 10,
        receiver_idle=0.02,
        ray_cpu=1e-3 * unrolls + 0.05 * nodes * 10,
        unroll_bytes=100 * steps,
        weights_bytes=10**6,
    )


WINDOWS = [_window(1, 1, 60, 30), _window(2, 1, 120, 5), _window(8, 4, 150, 75)]
WAITING = {100: 0.1, 1000: 1.0}


def test_the_fit_finds_the_model_that_made_the_measurements():
    fitted = dataclasses.asdict(scaling.fit(WINDOWS, WAITING, 20))
    assert fitted == pytest.approx(dataclasses.asdict(MODEL), rel=1e-6)


def test_the_limits_of_a_cluster_by_hand():
    cluster = Cluster(
        actors=128, learners=2, learner_rate=1e4, actors_per_node=64, link=1e8, batch_size=32
    )
    limits = scaling.limits(MODEL, cluster)
    assert limits == pytest.approx(
        {
            "actors": 128 * 2000.0,
            "learner": 2e4,
            # 4 ms, 64 actors to look at, and weights with every unroll: it is a batch.
            "receiver": 2 * 1e3 / ((4.0 + 0.064 + 2.0) / 320),
            "network in (unrolls)": 2 * 1e6,
            # One node for each learner, one version per 320 steps.
            "network out (weights)": 2 * 1e8 / (1e6 / 320),
        }
    )
    # 128 × 2 unrolls of 16 environments under way, 32 to a batch, and the batch ahead.
    assert scaling.policy_lag(MODEL, cluster) == 130.0
    assert scaling.useful_actors(MODEL, cluster) == 10  # 20,000 steps/s of 2,000 each
    slow = dataclasses.replace(cluster, environment_factor=10.0)
    assert scaling.limits(MODEL, slow)["actors"] == pytest.approx(128 * 200.0)
    assert scaling.useful_actors(MODEL, slow) == 100
    assert "| 128 | 2 | ×1 | 20,000 | learner | 130 | 0.13 GB |" in scaling.table(MODEL, [cluster])


def test_a_node_fetches_a_version_once_and_only_when_asked():
    one = scaling.limits(MODEL, Cluster(actors=64, batch_size=6400))["network out (weights)"]
    four = scaling.limits(MODEL, Cluster(actors=256, batch_size=6400))["network out (weights)"]
    assert one == pytest.approx(4 * four)  # as many fetches as nodes
    many = [
        scaling.limits(MODEL, Cluster(actors=n))["network out (weights)"] for n in (5_000, 50_000)
    ]
    assert many[0] == many[1]  # one for every unroll


CONTENT = {
    "format": scaling.FORMAT,
    "windows": [window._asdict() for window in WINDOWS],
    "waiting": WAITING,
    "settings": {"unroll_length": 20},
}


def test_files_of_measurements(tmp_path):
    path = tmp_path / "scaling.json"
    path.write_text(json.dumps(CONTENT))
    assert scaling.read(path) == (WINDOWS, WAITING, {"unroll_length": 20})
    for damage in ({"format": "another"}, {"windows": [{}]}, {"waiting": 3}, {"settings": None}):
        path.write_text(json.dumps(CONTENT | damage))
        with pytest.raises(UserError, match="must be a file of measurements"):
            scaling.read(path)
    path.write_text("{")
    with pytest.raises(UserError, match="must be a file of measurements"):
        scaling.read(path)


ONE = WINDOWS[0]._asdict()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ({"windows": []}, "it has 0 windows; must have at least two"),
        ({"windows": [ONE]}, "it has 1 windows; must have at least two"),
        ({"waiting": {}}, "waiting must have a cost"),
        ({"waiting": {"100": 0}}, "waiting must be a number of at least 1e-09"),
        ({"waiting": {"0": 1}}, "waiting must be a number of at least 1"),
        ({"waiting": {"-5": 1}}, "waiting must be a number of at least 1"),
        ({"settings": {"unroll_length": 0.5}}, "unroll_length must be a number of at least 1"),
        ({"windows": [ONE, ONE | {"agent_steps": 59}]}, "agent_steps must be at least unrolls"),
        *(
            ({"windows": [ONE, ONE | {name: value}]}, f"{name} must be a number of at least")
            for name in ONE
            for value in (0, -1, math.nan, math.inf, True, 1e-300)
            if value not in (0, 1e-300) or name not in scaling._MAY_BE_ZERO
        ),
    ],
)
def test_measurements_that_cannot_be_fitted_are_refused(tmp_path, damage, said):
    path = tmp_path / "scaling.json"
    path.write_text(json.dumps(CONTENT | damage))
    with pytest.raises(UserError) as caught:
        scaling.read(path)
    assert f"{path}: must be a file of measurements ({said}" in str(caught.value)


def test_what_may_be_zero_is_fitted(tmp_path):
    windows = [w._replace(**dict.fromkeys(scaling._MAY_BE_ZERO, 0)) for w in WINDOWS]
    model = scaling.fit(windows, {1: 1e-9}, 1)
    assert scaling.useful_actors(model, Cluster(actors=1000)) > 0
    assert "1,000" in scaling.table(model, [Cluster(actors=1000)])


def test_the_plot_is_drawn(tmp_path):
    out = tmp_path / "plan.png"
    scaling.plot(MODEL, WINDOWS, [Cluster(actors=0), Cluster(actors=0, learners=8)], out)
    assert out.read_bytes()[:4] == b"\x89PNG"


def test_the_command_plans_from_the_measurements_that_come_along(tmp_path):
    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "tools/scaling_plan.py", *arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=300,
        )

    out = tmp_path / "plan.png"
    result = run("plan", f"--out={out}", "testdata/results/scaling.json")
    assert result.returncode == 0, result.stderr
    assert "| 10,000 | 8 | ×100 |" in result.stdout
    assert out.stat().st_size > 10_000
    assert run("plan", f"--out={out}", "setup.py").stderr.startswith(
        f"error: {ROOT / 'setup.py'}: must be"
    )


@pytest.mark.parametrize(
    "given",
    [
        "--shapes=a",
        "--shapes=3x2",
        "--shapes=0x1",
        "--publish_every=x",
        "--publish_every=0",
        "--publish_every=",
        "--slow=inf",
        "--learner_rate=nan",
    ],
)
def test_the_command_refuses_shapes_that_a_cluster_cannot_have(tmp_path, given):
    done = run_tool("scaling_plan", "measure", f"--out={tmp_path}/s.json", given)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {given}: must be"), done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["measure", "--out=/no/x.json"], "--out=/no/x.json: must be a file in a folder that exi"),
        (["plan", "--out=/no/x.png", "s.json"], "--out=/no/x.png: must be a file in a folder that"),
        (["measure", "--out={tmp}/s.json", "--environment=nosuch"], "--environment=nosuch: unkno"),
        (["measure", "--out={tmp}/s.png"], "--out={tmp}/s.png: must end in .json"),
        (["plan", "--out={tmp}/s.json", "{tmp}/s.json"], "--out={tmp}/s.json: must end in .png"),
        (["transport", "Pong", "nosuch"], "unknown environment 'nosuch'"),
    ],
)
def test_what_cannot_be_written_or_played_is_refused_first(tmp_path, arguments, message):
    done = run_tool("scaling_plan", *(a.replace("{tmp}", str(tmp_path)) for a in arguments))
    assert done.returncode == 2 and done.stdout == "", done.stderr
    assert message.replace("{tmp}", str(tmp_path)) in done.stderr
    assert done.stderr.count("\n") == 1
