"""The benchmark: windows that hold whole pieces of work (ground truth); the command, its file."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from support import forked_command

from meta_impala.benchmarks import throughput as benchmark
from meta_impala.benchmarks.throughput import Effort

ROOT = pathlib.Path(__file__).parents[2]


def test_a_window_holds_whole_pieces_of_work(monkeypatch):
    """A piece of 100 steps every 30 ms; windows of 40 ms would hold one and a third."""
    seconds = [0.0]

    def sleep(duration):
        seconds[0] += duration

    # A clock of its own: on a loaded machine a piece takes longer than a window.
    monkeypatch.setattr(benchmark.time, "sleep", sleep)
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: seconds[0])
    samples = list(benchmark._sample(lambda: 100 * int(seconds[0] / 0.03), Effort(5, 0.04, 0.0)))
    assert len(samples) == 6
    for before, after in zip(samples, samples[1:], strict=False):
        pieces = (after.agent_steps - before.agent_steps) / 100
        assert pieces >= 2 and pieces == int(pieces)
        # Both ends lie just after a piece.
        assert (after.wall - before.wall) / pieces == pytest.approx(0.03, rel=0.1)


def test_the_cost_is_of_the_median_window():
    samples = [
        benchmark._Sample(steps, wall, cpu)
        for steps, wall, cpu in [(0, 0, 0), (100, 1, 1), (200, 3, 1.5), (500, 4, 7.5)]
    ]
    cost = benchmark._cost(samples, 4, {"found": True})
    assert cost.frames_per_second == 4 * 100  # of 100, 50 and 300 steps a second
    assert cost.cpu_ms_per_agent_step == pytest.approx(10.0)  # of 10, 5 and 20
    assert cost.peak_rss_mib > 100 and cost.details == {"found": True}


def test_a_measurement_counts_what_was_done():
    def work():
        time.sleep(0.01)
        return 7

    samples = benchmark._measure(work, Effort(2, 0.05, 0.0))
    assert len(samples) == 3
    for before, after in zip(samples, samples[1:], strict=False):
        assert after.wall - before.wall >= 0.05
        assert 7 <= after.agent_steps - before.agent_steps <= 7 * 6


def _run(*arguments):
    return forked_command.run(
        [sys.executable, "tools/benchmark.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=500,
    )


_CATCH = ("--environment=Catch", "--batch_size=4", "--envs_per_actor=4",
          "--unroll_length=5", "--meta_batch_size=2", "--quick")  # fmt: skip


def test_the_command_writes_what_it_prints(tmp_path):
    rows = ["learner_plain", "learner_nested_tapes"]
    arguments = [f"--rows={','.join(rows)}", f"--json={tmp_path / 'b.json'}"]
    # Operations that TensorFlow finds to be quick here would be left out of the profile.
    result = _run(*_CATCH, *arguments, "--profile", "--mlp_sizes=512,512")
    assert result.returncode == 0, result.stderr
    document = json.loads((tmp_path / "b.json").read_text("utf-8"))
    assert [row["name"] for row in document["rows"]] == rows
    costs = [row["cpu_ms_per_agent_step"] for row in document["rows"]]
    assert all(cost > 0 for cost in costs)
    assert all(row["frames_per_second"] > 0 for row in document["rows"])
    assert all(row["peak_rss_mib"] > 100 for row in document["rows"])
    assert all(0 <= row["cpu_share_of_hypervisor"] <= 1 for row in document["rows"])
    floor = document["roofline"]
    assert floor["gigaflops_one_core"] > 0 and floor["gigaflops_all_cores"] > 0
    assert list(floor["parts"]) == rows
    for row, cost in zip(rows, costs, strict=True):
        part = floor["parts"][row]
        assert part["measured"] == cost
        assert (
            part["share_of_roofline"] == pytest.approx(part["floor"] / cost) and part["floor"] > 0
        )
        assert part["kernels"] > 0
        assert part["attainable_share"] == pytest.approx(part["floor"] / part["kernels"])
    ratio = document["ratios"]["learner_nested_tapes_over_plain"]
    assert ratio == pytest.approx(costs[1] / costs[0])
    for row in document["rows"]:
        assert f"{row['cpu_ms_per_agent_step']:.3f}" in result.stdout
        # The profile is of the update: it has its matrix products, and costs no more than it.
        spent = row["details"]["operations_ms"]
        assert sum(ms for kind, ms in spent.items() if kind.endswith("MatMul")) > 0
        assert 0 < sum(spent.values()) < 5 * 20 * row["cpu_ms_per_agent_step"]
        assert f"{row['name']}, ms of an update by operation: {next(iter(spent))}" in result.stdout
    assert f"{ratio:.3f}" in result.stdout
    assert document["machine"]["processor"] and document["machine"]["load"] >= 0


@pytest.mark.parametrize("seconds", [0.0, 0.5])
def test_ctrl_c_ends_the_command_and_the_process_of_a_row(tmp_path, seconds):
    process = forked_command.Popen(
        [sys.executable, "tools/benchmark.py", *_CATCH, "--rows=environment"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    with process:
        assert any("CPU-ms/step" in line for line in process.stdout), process.stderr.read()
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "interrupted\n")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_row_without_a_floor_is_named_and_has_none_in_the_file(tmp_path):
    given = ["--rows=learner_nested_tapes", "--meta_parameters=none"]
    result = _run(*_CATCH, *given, f"--json={tmp_path / 'b.json'}")
    assert result.returncode == 0, result.stderr
    assert "without a floor: learner_nested_tapes (nothing is learned of η)" in result.stdout
    document = json.loads((tmp_path / "b.json").read_text("utf-8"))
    assert document["roofline"]["parts"] == {}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--rows=learners"], "--rows=learners"),
        (["--vary=num_actors"], "--vary=num_actors"),
        (["--vary=nonsense=1"], "--vary=nonsense=1"),
        (["--vary=num_actors=1,x"], "num_actors"),
        (["--vary=batch_size=32,7"], "--meta_batch_size=8"),
        (["--micro_batches=4"], "row learner_nested_tapes (--rows chooses): --meta_gradient_mode"),
        (["--actors=ray"], "--actors=ray: must be threads"),
        ([*_CATCH, "--vary=actors=threads,ray"], "--actors=ray: must be threads"),
        ([*_CATCH, "--actors=ray", "--vary=actors=threads"], "--actors=ray: must be threads"),
        ([*_CATCH, "--vary=learner_index=0,1"], "--learner_index=1"),
        (["--rows="], "--rows=: must be among environment, "),
        (["--vary="], "--vary=: must be NAME=VALUE"),
        (["--vary=num_actors="], "--vary=num_actors=: must be NAME=VALUE"),
        (["--environment=nosuch"], "--environment=nosuch: unknown environment"),
        (["--vary=environment=Pong,nosuch"], "--environment=nosuch: unknown environment"),
        ([*_CATCH, "--image_scaling=background"], "--image_scaling=background: must be unit with"),
        (["--preset=laptop", "--environment=Catch"], "--image_scaling=background: must be unit"),
        (["--image_scaling=background", "--vary=environment=Pong,Catch"], "--environment=Catch;"),
        (["--environment=Catch", "--vary=image_scaling=unit,background"], "--image_scaling=backg"),
        (["--json=/no/x.json"], "--json=/no/x.json: must be a file in a folder that exists"),
        (["--meta_objective=bootstrapped", "--meta_kl_cost=1"], "--meta_kl_cost=1: has no effect"),
        ([*_CATCH, "--learner_addresses=a:1,b:2"], "--learner_addresses=a:1,b:2: must be empty"),
    ],
)
def test_mistakes_are_refused_in_one_line(arguments, named):
    result = _run(*arguments)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert named in result.stderr


@pytest.mark.slow
def test_the_command_prints_every_row_and_the_shares_of_time():
    result = _run(*_CATCH)
    assert result.returncode == 0, result.stderr
    for words in ("environment_inference", "program_meta, learner: update", "the ceiling",
                  "program_meta, actors: environment", "share_of_ceiling"):  # fmt: skip
        assert words in result.stdout


@pytest.mark.slow
def test_vary_measures_every_value_of_a_setting():
    result = _run(*_CATCH, "--rows=program_meta", "--vary=num_actors=1,3")
    assert result.returncode == 0, result.stderr
    assert "program_meta num_actors=1" in result.stdout
    assert "program_meta num_actors=3" in result.stdout
