"""The doctor command as a user runs it, and on runs that were broken on purpose (command)."""

import contextlib
import io
import json
import os
import subprocess
import sys
from unittest import mock

import pytest
from absl import flags
from support import forked_command
from support.command_helpers import ROOT, refused
from support.demonstration import META_PONG, OLDER_PONG, copy_of
from support.run_helpers import files_of, make_config, make_trainer

from meta_impala import doctor
from meta_impala.command import LOADING
from meta_impala.config import Config, resolve
from meta_impala.diagnosis import metric_checks
from meta_impala.errors import RunFailed, UserError
from meta_impala.storage.run_folder import RunFolder
from meta_impala.system import tensorflow_setup

STEPS = 8 * 10
SETTINGS = {
    "batch_size": 8,
    "envs_per_actor": 8,
    "num_actors": 1,
    "meta_batch_size": 4,
    "unroll_length": 10,
    "total_frames": 400 * STEPS,
    "log_frames": 16 * STEPS,
    "mlp_sizes": "16",
    "rmsprop_epsilon": 1e-4,
}
_OWN = "support.broken_environments"
# Finding -> what breaks a run so that it is among the first.
BROKEN = {
    "learning_rate": {"learning_rate": 1e-9},
    "entropy_flat": {"entropy_cost": 10.0},
    "entropy_collapsed": {"entropy_cost": 0.0, "learning_rate": 3.0, "max_gradient_norm": 0.0},
    "gradient_clip": {"max_gradient_norm": 1e-3, "learning_rate": 1e-4},
    "dead_units": {"learning_rate": 1.0, "entropy_cost": 1.0},
    "rho_clip": {"rho_clip": 0.01, "c_clip": 0.01, "pg_rho_clip": 0.01},
    "explained_variance": {"baseline_cost": 0.0, "learning_rate": 1e-4},
    "gamma_bound": {"gamma": 0.9995, "learning_rate": 1e-5},
    "lambda_bound": {"lambda_": 0.9995, "learning_rate": 1e-5},
    "meta_gradient_noise": {"baseline_cost": 0.0, "learning_rate": 1e-4},
    # Updates on old batches let the actors run ahead, however fast the learner is.
    "policy_lag": {"queue_capacity": 256, "sample_reuse": 4, "learning_rate": 1e-4},
    "bad_updates": {"environment": f"{_OWN}:NotFinite-v0"},
    "no_finished_game": {"environment": f"{_OWN}:Endless-v0", "total_frames": 1100 * STEPS},
    "no_reward": {"environment": f"{_OWN}:NoReward-v0"},
    "reward_scale": {"environment": f"{_OWN}:Sizes-v0"},
    "time_limit": {"environment": f"{_OWN}:Limited-v0"},
}


def _train(folder, **settings):
    with contextlib.suppress(RunFailed):
        make_trainer(folder, make_config(**SETTINGS | {"learning_rate": 0.01} | settings)).run()
    return folder


def _doctor(folder, *arguments):
    """The command in this process; what it prints."""
    out = io.StringIO()
    before = set(flags.FLAGS)
    doctor.define_flags()
    try:
        rest = flags.FLAGS(["doctor", "--trust_modules", *arguments, str(folder)])
        # TensorFlow is set up once in a process.
        set_up = mock.patch.object(tensorflow_setup, "configure_for_inference")
        with set_up, contextlib.redirect_stdout(out):
            assert doctor.main(rest[1:]) == 0
    finally:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
    return out.getvalue()


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return _train(tmp_path_factory.mktemp("runs") / "healthy")


def test_a_healthy_run_has_no_findings_and_is_not_changed(healthy):
    before = files_of(healthy)
    loading, playing, answer = _doctor(healthy, "--steps=64").splitlines()
    assert loading == LOADING
    assert playing == "playing meta_impala/Catch-v0 with frames-32000"
    assert answer.startswith("It learns: the return rose from")
    found = json.loads(_doctor(healthy, "--json", "--steps=64"))
    assert found["findings"] == [] and found["played_games"] and found["has_risen"]
    assert files_of(healthy) == before


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "learning_rate" else pytest.mark.slow)
        for name in BROKEN
    ],
)
def test_a_deliberately_broken_run_has_the_expected_finding(tmp_path, name):
    run = _train(tmp_path / "run", **BROKEN[name])
    found = json.loads(_doctor(run, "--json", "--steps=64"))
    assert name in [finding["name"] for finding in found["findings"]][:4]
    assert len(found["sentences"]) <= 5


def test_what_an_environment_prints_is_no_part_of_the_json(tmp_path):
    run = _train(tmp_path, environment=f"{_OWN}:Talking-v0", total_frames=32 * STEPS)
    given = ["--trust_modules", "--json", "--steps=20"]
    done = forked_command.run(
        [sys.executable, "-m", "meta_impala.doctor", *given, run],
        cwd=ROOT, capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["played_games"]
    for said in ("talks when it is made", "a library talks", "talks at every step"):
        assert said in done.stderr


def test_the_command_without_a_batch_needs_no_tensorflow(tmp_path):
    run = copy_of(OLDER_PONG, tmp_path / "run")
    code = (
        "import runpy, sys; sys.modules['tensorflow'] = None\n"
        "sys.argv = ['doctor', '--nobatch', sys.argv[1]]\n"
        "runpy.run_module('meta_impala.doctor', run_name='__main__', alter_sys=True)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(run)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == "It learns: the return rose from -20.59 to -14.89.\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give the folder of one run"),
        (["a", "b"], "b: unexpected argument; one folder is taken"),
        (["no/such/run"], "no/such/run: must be the folder of a run (there is no such folder)"),
        (["README.md"], "README.md: must be the folder of a run (it is a file)"),
        (["README.md/run"], "README.md/run: must be the folder of a run (there is no such folder)"),
        (["--steps=0", "x"], "--steps=0: must be a whole number in [1, 1000000]"),
        (["--seed=-1", "x"], "--seed=-1: must be a whole number in [0, "),
    ],
)
def test_a_mistake_is_refused_in_one_line(arguments, message):
    assert message in refused("meta_impala.doctor", *arguments)


def test_without_a_checkpoint_the_metrics_are_diagnosed(capsys):
    assert _doctor(META_PONG).startswith("It learns")
    said = capsys.readouterr().err
    assert said == "frames-3000320 is gone: only the metrics are checked\n"


def test_a_run_that_failed_before_its_first_row_says_why(tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    folder.prepare()
    folder.save_config(resolve(Config(environment="Catch")))
    with pytest.raises(UserError, match="there are no metrics yet"):
        _doctor(folder.path)
    folder.write_status("failed", 0, reason="no memory")
    lines = _doctor(folder.path).splitlines()
    assert lines[1] == "2. The run failed: no memory"
    folder.write_status("running", 0)
    status = json.loads(folder.status_path.read_text()) | {"pid": 2**22 + 1}
    folder.status_path.write_text(json.dumps(status))
    found = json.loads(_doctor(folder.path, "--json", "--nobatch"))
    assert "ended without saving its state at 0 frames" in found["failure"]
    ended = [line for line in found["sentences"] if found["failure"] in line]
    assert ended == [f"The run was interrupted: {found['failure']}"]


def test_the_environments_of_all_learners_are_counted(tmp_path):
    """Two learners of 2 × 32 environments have played 160,000 frames: 1,250 each."""
    folder = RunFolder(tmp_path)
    folder.prepare()
    config = resolve(
        Config(environment="Catch", num_actors=2, envs_per_actor=32, learner_addresses="a:1,b:1")
    )
    folder.save_config(config)
    assert folder.as_trained(folder.load_config()).num_learners == 2
    columns = {"frames": 160_000, "updates": 1000, "episodes": 0}
    for total, found in ((160_000, False), (2_000_000, True)):
        rows = "".join(f"{total * k // 20},{k * 50},0\n" for k in range(1, 21))
        folder.metrics_path.write_text(f"{','.join(columns)}\n{rows}")
        evidence = doctor._evidence(folder, folder.load_config())
        finding = metric_checks.no_finished_game(evidence)
        assert (finding is not None) == found
        if finding is not None:
            assert "each of the 128 environments has played 15,625 frames" in finding.sentence
