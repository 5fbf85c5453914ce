"""Learning: the program reaches a score, as a user would train and evaluate it.

The default suite trains one short Catch run with the meta-gradient; `-m slow` runs what the presets
promise (3 seeds each, some 20 minutes on 2 cores).
"""

import json
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from support import forked_command

from meta_impala.storage.metrics_table import read_metrics

PRESETS = pathlib.Path(__file__).parents[2] / "meta_impala" / "presets"


def evaluation_mean(logdir: pathlib.Path, preset: str, *flags: str) -> float:
    """Trains with a preset, evaluates 100 episodes, returns their mean."""
    train = (f"--flagfile={PRESETS / preset}.flags", f"--logdir={logdir}", *flags)
    for module, arguments in (
        ("meta_impala.train", train),
        ("meta_impala.evaluate", (f"--logdir={logdir}", "--episodes=100")),
    ):
        result = forked_command.run(
            [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
    return json.loads((logdir / "evaluation.json").read_text("utf-8"))["mean"]


@pytest.mark.parametrize("learned", ["gamma,lambda", pytest.param("none", marks=pytest.mark.slow)])
def test_catch_is_learned_quickly(tmp_path, learned):
    flags = (f"--meta_parameters={learned}", "--total_frames=150000")
    assert evaluation_mean(tmp_path, "catch", *flags) >= 0.9


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_catch_is_learned_though_it_is_stopped_ten_times(tmp_path):
    """In the middle of annealing; every second time with kill -9."""
    total = 150_000
    flags = (f"--total_frames={total}", "--log_frames=1000", "--checkpoint_frames=2000")
    command = [sys.executable, "-m", "meta_impala.train",
               f"--flagfile={PRESETS / 'catch'}.flags", f"--logdir={tmp_path}", *flags]  # fmt: skip

    def frames() -> int:
        return max(
            (int(row["frames"]) for row in read_metrics(tmp_path / "metrics.csv")), default=0
        )

    for stops in range(10):
        with subprocess.Popen(command) as process:
            while frames() < (stops + 1) * total / 12:
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM if stops % 2 else signal.SIGKILL)
            assert process.wait(timeout=300) == (0 if stops % 2 else -signal.SIGKILL)
        assert frames() < total
    assert evaluation_mean(tmp_path, "catch", *flags) >= 0.9
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [int(row["frames"]) for row in rows][-1] == total
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("learned", ["gamma,lambda", "none"])
def test_the_catch_preset_learns(tmp_path, learned, seed):
    flags = (f"--meta_parameters={learned}", f"--seed={seed}")
    assert evaluation_mean(tmp_path, "catch", *flags) >= 0.9


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_cartpole_preset_learns(tmp_path, seed):
    assert evaluation_mean(tmp_path, "cartpole", f"--seed={seed}") >= 450
