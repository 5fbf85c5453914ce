"""Learning: the program reaches a score, as a user would train and evaluate it.

The default suite trains one short Catch run each way; `-m slow` runs what the presets promise (3
seeds each, some 20 minutes on 2 cores).
"""

import json
import pathlib
import subprocess
import sys

import pytest

PRESETS = pathlib.Path(__file__).parent.parent / "meta_impala" / "presets"


def evaluation_mean(logdir: pathlib.Path, preset: str, *flags: str) -> float:
    """Trains with a preset, evaluates 100 episodes, returns their mean."""
    train = (f"--flagfile={PRESETS / preset}.flags", f"--logdir={logdir}", *flags)
    for module, arguments in (
        ("meta_impala.train", train),
        ("meta_impala.evaluate", (f"--logdir={logdir}", "--episodes=100")),
    ):
        result = subprocess.run(
            [sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, result.stderr
    return json.loads((logdir / "evaluation.json").read_text("utf-8"))["mean"]


@pytest.mark.parametrize("learned", ["gamma,lambda", "none"])
def test_catch_is_learned_quickly(tmp_path, learned):
    flags = (f"--meta_parameters={learned}", "--total_frames=150000")
    assert evaluation_mean(tmp_path, "catch", *flags) >= 0.9


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("learned", ["gamma,lambda", "none"])
def test_catch_preset(tmp_path, learned, seed):
    flags = (f"--meta_parameters={learned}", f"--seed={seed}")
    assert evaluation_mean(tmp_path, "catch", *flags) >= 0.9


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_cartpole_preset(tmp_path, seed):
    assert evaluation_mean(tmp_path, "cartpole", f"--seed={seed}") >= 450
