"""The public names of `meta_impala`: cheap to import, and enough to train, load and act."""

import dataclasses
import errno
import os
import pathlib
import pkgutil
import re
import signal
import subprocess
import sys
import time

import gymnasium
import numpy as np
import pytest
from support import forked_command, run_helpers
from support.command_helpers import ROOT
from support.run_helpers import make_config

import meta_impala
from meta_impala import cli
from meta_impala.actors.threaded import ThreadedSource
from meta_impala.algorithm import losses
from meta_impala.config import FIELDS, resolve_network
from meta_impala.errors import UserError
from meta_impala.evaluation.record import MAX_GAMES
from meta_impala.storage import results_folder
from meta_impala.storage.folder_lock import FolderLock
from meta_impala.storage.manifest import list_checkpoints
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trust import Trust
from meta_impala.system.signals import StopRequest
from meta_impala.training import saved_progress


def test_importing_the_package_is_cheap():
    code = (
        "import sys, meta_impala; meta_impala.Config(gamma=0.5); dir(meta_impala)\n"
        "heavy = {'tensorflow', 'sonnet', 'gymnasium', 'ale_py', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_no_public_name_hides_a_module():
    modules = {module.name for module in pkgutil.iter_modules(meta_impala.__path__)}
    assert modules & set(meta_impala.__all__) == {"algorithm"}
    for entry in cli.COMMANDS.values():
        assert entry.module.rpartition(".")[2] in modules
    for name in meta_impala.__all__:
        assert getattr(meta_impala, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = meta_impala.lode


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    trainer = meta_impala.make_trainer(make_config(), path)
    assert trainer.run() == "finished"
    return path


def test_names_of_one_environment_continue_each_other(tmp_path):
    short = make_config(environment="Catch", total_frames=20, meta_parameters="none")
    meta_impala.make_trainer(short, tmp_path).run()
    config = RunFolder(tmp_path).load_config()
    assert config.environment == "meta_impala/Catch-v0"  # as the command writes it
    # A folder of an earlier version has the name as it was given, also in its checkpoints.
    long = dataclasses.replace(short, environment="meta_impala/Catch-v0", total_frames=40)
    assert meta_impala.make_trainer(long, tmp_path).run() == "finished"
    older = tmp_path / "older"
    run_helpers.make_trainer(older, short).run()
    assert RunFolder(older).load_config().environment == "Catch"
    assert meta_impala.make_trainer(long, older).run() == "finished"
    command = [sys.executable, "-m", "meta_impala", "train", f"--logdir={older}"]
    command += ["--environment=catch", "--total_frames=60"]
    done = forked_command.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert RunFolder(older).read_status()["frames"] == 60
    other = dataclasses.replace(short, environment="CartPole-v1")
    with pytest.raises(UserError, match="--environment=CartPole-v1"):
        meta_impala.make_trainer(other, older)


@pytest.mark.parametrize("core", ["none", "lstm"])
def test_an_agent_is_trained_loaded_and_acts(core, tmp_path):
    config = make_config(core=core, core_size=4, last_action_and_reward=core == "lstm")
    meta_impala.make_trainer(config, tmp_path).run()
    agent = meta_impala.load(tmp_path, seed=3)

    def play():
        environment = agent.make_environment()
        observation, actions = environment.reset(1)[0], []
        agent.reset(seed=3)
        for _ in range(30):
            actions.append(agent.act(observation))
            observation = environment.step(np.array(actions[-1:])).observations[0]
        environment.close()
        return actions

    first = play()
    assert first == play()
    assert set(first) == {0, 1, 2}  # drawn, not the likeliest


def test_an_evaluation_from_python_is_that_of_the_command(logdir, tmp_path):
    agent = meta_impala.load(str(logdir))
    result = agent.evaluate(episodes=5, seed=2, out=tmp_path / "scores.json")
    again = meta_impala.evaluate_agent(logdir, 5, seed=2)
    assert result["returns"] == again["returns"] and len(result["returns"]) == 5
    command = [sys.executable, "-m", "meta_impala", "evaluate", f"--logdir={logdir}"]
    forked_command.run([*command, "--episodes=5", "--seed=2"], cwd=ROOT, check=True, timeout=300)
    assert (logdir / "evaluation.json").read_bytes() == (tmp_path / "scores.json").read_bytes()


def test_the_agent_that_ships_acts():
    agent = meta_impala.load("pong")
    assert agent.act(np.zeros(agent.description.observation_shape, np.uint8)) in range(6)
    with pytest.raises(ValueError, match="observation has the shape"):
        agent.act(np.zeros([3]))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("pnog", "--agent=pnog: there is no such file; .*did you mean pong"),
        ("/", "must be the folder of a run"),
        ("none.npz", "there is no such file"),
    ],
)
def test_invalid_agents_are_refused(path, message):
    with pytest.raises(UserError, match=message):
        meta_impala.load(path)


@pytest.mark.parametrize("path", ["", " ", "\n\t"])
def test_an_empty_path_is_not_the_working_directory(path, logdir, monkeypatch):
    agent = meta_impala.load(logdir)
    monkeypatch.chdir(logdir)
    before = run_helpers.files_of(logdir)
    for call in (
        lambda: meta_impala.make_trainer(make_config(), path),
        lambda: meta_impala.load(path),
        lambda: meta_impala.evaluate_agent(path),
        lambda: agent.evaluate(1, out=path),
        lambda: RunFolder(path),
    ):
        with pytest.raises(UserError, match="must be a path"):
            call()
    assert run_helpers.files_of(logdir) == before


def test_a_run_is_continued_with_its_own_settings_only(logdir):
    longer = make_config(total_frames=240)
    assert meta_impala.make_trainer(longer, logdir).run() == "finished"
    with pytest.raises(UserError, match="gamma"):
        meta_impala.make_trainer(make_config(gamma=0.5), logdir)


def test_a_run_with_a_value_in_the_reference_that_nothing_reads_is_used_as_it_is(tmp_path):
    old = {"meta_parameter_references": "entropy_cost:0.5"}
    config = dataclasses.replace(make_config(), **old)
    run_helpers.make_trainer(tmp_path / "run", config).run()
    assert len(meta_impala.evaluate_agent(tmp_path / "run", 2)["returns"]) == 2
    longer = dataclasses.replace(config, total_frames=2 * config.total_frames)
    assert meta_impala.make_trainer(longer, tmp_path / "run").run() == "finished"
    with pytest.raises(UserError, match="J' does not read entropy_cost of η'"):
        meta_impala.make_trainer(config, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_one_trainer_at_a_time_trains_in_a_folder(tmp_path):
    held = tmp_path / "held"
    held.mkdir()
    lock = FolderLock(held)
    with pytest.raises(UserError, match="another trainer"):
        meta_impala.make_trainer(make_config(), held)
    lock.release()
    trainer = meta_impala.make_trainer(make_config(), held)
    lock = FolderLock(held)  # a trainer that does not run keeps nobody out
    with pytest.raises(UserError, match="another trainer"):
        trainer.run()
    lock.release()
    assert meta_impala.make_trainer(make_config(), held).run() == "finished"
    with pytest.raises(UserError, match="saved by another trainer after this one was made"):
        trainer.run()


def _without_config(path):
    (path / "checkpoints/frames-1").mkdir(parents=True)


def _of_a_population(path):
    (path / "members").mkdir(parents=True)


def _above_a_run(path):
    (path / "pong").mkdir(parents=True)
    for name in ("config.json", "status.json"):
        (path / "pong" / name).touch()


def _with(**settings):
    def make(path):
        path.mkdir()
        RunFolder(path).save_config(resolve_network(make_config(**settings), (3, 2)))

    return make


def _whose_checkpoints_are_gone(path):
    _with(network="mlp")(path)
    RunFolder(path).write_status("stopped", 40, checkpoint="frames-40")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_without_config, r"not their config\.json; restore it, or use another folder$"),
        (_of_a_population, "holds a population"),
        (_above_a_run, "runs below it: pong"),
        (_with(network="mlp", gamma=0.5), r"--gamma=\S+ \(the run has 0.5\)"),
        (_with(network="mlp", learning_rate=0.5), r"learning_rate=\S+ \(the run has 0.5\); use"),
        (
            _with(network="mlp", environment_kwargs='{"a": "none:E"}'),
            "names the module none,",
        ),
        (_whose_checkpoints_are_gone, "frames-40 was saved there; restore it, or use another"),
    ],
)
def test_a_refusal_asks_for_nothing_that_a_program_cannot_give(tmp_path, make, message):
    path = tmp_path / "run"
    make(path)
    with pytest.raises(UserError, match=message) as caught:
        meta_impala.make_trainer(make_config(), path)
    named = set(re.findall(r"--(\w+)", str(caught.value)))
    assert named <= {"logdir", *FIELDS}, "a setting, or what it is called with"
    assert "give --" not in str(caught.value) and "another --" not in str(caught.value)


@pytest.mark.parametrize("other_updates", [0, 1])
def test_more_updates_on_a_batch_by_another_trainer_are_not_overwritten(tmp_path, other_updates):
    """The frames of its checkpoint are those of this trainer's (`sample_reuse`)."""
    config = make_config(sample_reuse=3)

    def trainer_that_stops(updates):
        stop = StopRequest()
        trainer = meta_impala.make_trainer(config, tmp_path, stop)
        if updates:
            _act_in_update(trainer, updates, lambda: stop.request("a test"))
        else:
            stop.request("a test")
        return trainer

    assert trainer_that_stops(4).run() == "stopped"
    earlier = meta_impala.make_trainer(config, tmp_path)
    other = trainer_that_stops(other_updates)
    assert other.run() == "stopped"
    assert (other.frames, other.updates) == (20, 4 + other_updates)
    if other_updates:
        with pytest.raises(UserError, match=r"frames-20: was saved by another trainer after this"):
            earlier.run()
        assert meta_impala.make_trainer(config, tmp_path).updates == 5
    else:
        assert earlier.run() == "finished", "nothing was saved"


def test_the_folder_of_a_run_is_that_of_the_start(tmp_path, monkeypatch):
    """An environment may change the working directory; `~` is the home folder."""
    monkeypatch.chdir(tmp_path)
    from meta_impala.environments import registry

    describe = registry.describe

    def and_move(*given, **named):
        os.chdir("/")
        return describe(*given, **named)

    monkeypatch.setattr(registry, "describe", and_move)
    assert meta_impala.make_trainer(make_config(), "here").folder.path == tmp_path / "here"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    trainer = meta_impala.make_trainer(make_config(), pathlib.Path("~/there"))
    assert trainer.folder.path == tmp_path / "home/there"


MOVING = """
import os, gymnasium
from meta_impala.environments.catch import Catch

class Moving(Catch):
    def __init__(self, **named):
        super().__init__(**named)
        os.chdir("/")

gymnasium.register("Moving-v0", entry_point=Moving)
os.chdir("/")
"""


@pytest.fixture
def moving(tmp_path, monkeypatch):
    """The name of an environment whose module and constructor change the working directory."""
    (tmp_path / "moving.py").write_text(MOVING)
    (tmp_path / "eta.csv").write_text("frames,gamma,lambda\n0,0.9,0.8\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield "moving:Moving-v0"
    sys.modules.pop("moving", None)
    gymnasium.registry.pop("Moving-v0", None)


REPLAY = {"eta_schedule": "replay", "eta_schedule_file": "eta.csv"}


def test_the_file_that_a_run_replays_is_that_of_the_start(moving, tmp_path):
    config = make_config(environment=moving, **REPLAY)
    trainer = meta_impala.make_trainer(config, "run")
    assert trainer.config.eta_schedule_file == str(tmp_path / "eta.csv")
    assert trainer.run() == "finished"
    last = run_helpers.read_metrics(tmp_path / "run")[-1]
    assert (float(last["gamma"]), float(last["lambda"])) == pytest.approx((0.9, 0.8))
    longer = dataclasses.replace(config, total_frames=12 * run_helpers.BATCH_FRAMES)
    assert meta_impala.make_trainer(longer, tmp_path / "run").run() == "finished"  # from "/"


def test_the_command_replays_the_file_of_the_start(moving, tmp_path):
    command = [sys.executable, "-m", "meta_impala", "train", "--logdir=run", "--batch_size=4"]
    command += [f"--environment={moving}", "--envs_per_actor=2", "--unroll_length=5"]
    command += ["--meta_batch_size=3", "--mlp_sizes=8", "--total_frames=40"]
    command += [f"--{name}={value}" for name, value in REPLAY.items()]
    path = os.pathsep.join([str(ROOT), str(tmp_path)])
    for _ in range(2):  # again, as the same command
        done = subprocess.run(
            command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": path},
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    config = RunFolder(tmp_path / "run").load_config(Trust(everything=True))
    assert config.eta_schedule_file == str(tmp_path / "eta.csv")


def test_terms_that_a_bootstrapped_objective_does_not_read_are_refused(monkeypatch, tmp_path):
    bootstrapped = make_config(meta_objective="bootstrapped", meta_batch_size=4)
    path = tmp_path / "run"
    with pytest.raises(UserError, match="--meta_kl_cost=1: has no effect with --meta_objective=b"):
        meta_impala.make_trainer(dataclasses.replace(bootstrapped, meta_kl_cost=1.0), path)
    own = dict.fromkeys(("mine", "none"), lambda i: 0 * i.values + 1)
    monkeypatch.setattr(losses, "TERMS", losses.TERMS | own)
    monkeypatch.setattr(losses, "OWN_META_WEIGHTS", {"none": 0.0, "mine": 2.0})
    with pytest.raises(UserError, match=r'OWN_META_WEIGHTS\["mine"\]=2: has no effect with --meta'):
        meta_impala.make_trainer(bootstrapped, path)
    assert not path.exists()
    for others in (make_config(), dataclasses.replace(bootstrapped, meta_parameters="none")):
        meta_impala.make_trainer(others, tmp_path / others.meta_parameters)
    monkeypatch.setattr(losses, "OWN_META_WEIGHTS", {"none": 0.0})
    meta_impala.make_trainer(bootstrapped, path)


def test_a_run_of_an_older_version_with_such_a_term_is_used_and_continued(monkeypatch, tmp_path):
    """It was recorded as if it had been read."""
    config = make_config(meta_objective="bootstrapped", meta_batch_size=4)
    config = dataclasses.replace(config, meta_kl_cost=1.0)
    monkeypatch.setattr(losses, "TERMS", losses.TERMS | {"mine": lambda i: 0 * i.values + 1})
    monkeypatch.setattr(losses, "OWN_META_WEIGHTS", {"mine": 2.0})
    monkeypatch.setattr(saved_progress, "refuse_unread_terms", lambda *_: None)
    run_helpers.make_trainer(tmp_path, config).run()
    monkeypatch.undo()
    newest = next(iter(list_checkpoints(tmp_path / "checkpoints")))
    assert '"mine": 2.0' in (newest / "manifest.json").read_text()
    assert len(meta_impala.evaluate_agent(tmp_path, 1)["returns"]) == 1
    longer = dataclasses.replace(config, total_frames=12 * run_helpers.BATCH_FRAMES)
    with pytest.raises(UserError, match="meta_entropy_cost"):
        meta_impala.make_trainer(dataclasses.replace(longer, meta_entropy_cost=1.0), tmp_path)
    assert meta_impala.make_trainer(longer, tmp_path).run() == "finished"


def test_a_refused_trainer_leaves_no_folder(tmp_path):
    path = tmp_path / "new/run"
    for config in (
        make_config(eta_schedule="replay", eta_schedule_file=str(tmp_path / "none.csv")),
        make_config(image_scaling="background"),
    ):
        with pytest.raises(UserError):
            meta_impala.make_trainer(config, path)
        assert not path.parent.exists()


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_seeds_out_of_range_are_refused_at_once(seed, logdir):
    for call in (
        lambda: meta_impala.load(logdir, seed=seed),
        lambda: meta_impala.load(logdir).reset(seed),
        lambda: meta_impala.load(logdir).evaluate(2, seed=seed),
    ):
        with pytest.raises(ValueError, match=f"seed is {seed}; must be from 0 to"):
            call()


def test_the_file_of_a_result_is_checked_before_the_games(logdir, tmp_path, monkeypatch):
    agent = meta_impala.load(logdir)
    for out in (tmp_path, tmp_path / "none/scores.json"):
        with pytest.raises(UserError, match="must be a file in a folder that exists"):
            agent.evaluate(episodes=10**9, out=out)
    before = run_helpers.files_of(logdir)
    for out in (tmp_path / "scores.txt", logdir / "config.json", logdir / "scores.json"):
        with pytest.raises(UserError, match=rf"^out={out}: must end in \.json, and begin with"):
            agent.evaluate(episodes=10**9, out=out)
    assert run_helpers.files_of(logdir) == before

    def read_only(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patched:
        patched.setattr(results_folder, "_probe", read_only)
        with pytest.raises(UserError, match=r"^out=.*scores\.json: cannot be written \(Permission"):
            agent.evaluate(episodes=10**9, out=tmp_path / "scores.json")
    monkeypatch.setenv("HOME", str(tmp_path))
    agent.evaluate(episodes=1, out="~/scores.json")
    assert (tmp_path / "scores.json").is_file()


@pytest.mark.parametrize("episodes", [-1, 0, MAX_GAMES + 1, 10**18])
def test_a_number_of_games_out_of_range_is_refused_at_once(episodes, logdir, monkeypatch):
    played = "meta_impala.evaluation.evaluator.Evaluation.run"
    monkeypatch.setattr(played, lambda *_: pytest.fail("it is played"))
    with pytest.raises(ValueError, match=rf"episodes is {episodes}; must be from 1 to {MAX_GAMES}"):
        meta_impala.evaluate_agent(logdir, episodes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learner_addresses": "a:1,b:2"}, "learner_addresses=a:1,b:2: must be empty"),
        ({"actors": "ray"}, r"actors=ray.*(needs Ray|call ray.init\(\))"),
    ],
)
def test_settings_of_several_processes_are_refused(settings, message, tmp_path):
    sizes = {"batch_size": 4, "meta_batch_size": 4}
    with pytest.raises(UserError, match=message):
        meta_impala.make_trainer(make_config(**settings, **sizes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_decides_the_bits_of_a_run_is_set(tmp_path, monkeypatch):
    from meta_impala.training import make_trainer as module

    seen = []
    monkeypatch.setattr(module, "configure_in_program", lambda **given: seen.append(given))
    for deterministic in (False, True):
        config = make_config(deterministic=deterministic)
        meta_impala.make_trainer(config, tmp_path / str(deterministic))
    assert seen == [{"deterministic": False}, {"deterministic": True}]


def _act_in_update(trainer, number, act):
    """Does something at the end of this update of the learner, before the trainer counts it."""
    update, made = trainer.learner.update, []

    def update_and_act(*given):
        result = update(*given)
        made.append(1)
        if len(made) == number:
            act()
        return result

    trainer.learner.update = update_and_act


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The final state of a deterministic run that was not interrupted."""
    path = tmp_path_factory.mktemp("run")
    trainer = meta_impala.make_trainer(make_config(deterministic=True), path)
    assert trainer.run() == "finished"
    return run_helpers.numbers(trainer.learner.state)


def _assert_finished_again(trainer, uninterrupted):
    """A further call finishes the run; a deterministic one, to the bit as without the stop."""
    assert trainer.run() == "finished"
    batches = trainer.config.total_frames // run_helpers.BATCH_FRAMES
    counts = (trainer.config.total_frames, batches)
    assert (trainer.frames, trainer.updates) == trainer.learner.state.counts == counts
    if trainer.config.deterministic:
        found = run_helpers.numbers(trainer.learner.state)
        for one, two in zip(uninterrupted, found, strict=True):
            np.testing.assert_array_equal(one, two)
        rows = run_helpers.read_metrics(trainer.folder.path)
        assert [int(row["frames"]) for row in rows] == [40, 80, 120, 160, 200]


@pytest.mark.parametrize("deterministic", [False, True])
def test_ctrl_c_ends_the_update_saves_and_is_raised(tmp_path, uninterrupted, deterministic):
    trainer = meta_impala.make_trainer(make_config(deterministic=deterministic), tmp_path)
    _act_in_update(trainer, 4, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    status = RunFolder(tmp_path).read_status()
    assert (status["state"], status["frames"], status["checkpoint"]) == ("stopped", 80, "frames-80")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    _assert_finished_again(trainer, uninterrupted)


def _interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("deterministic", "checkpoint_frames"), [(False, 0), (False, 40), (True, 0)]
)
def test_a_further_call_after_an_interrupted_update(
    tmp_path, uninterrupted, deterministic, checkpoint_frames
):
    """The update was made, and neither counted by the trainer nor saved."""
    config = make_config(deterministic=deterministic, checkpoint_frames=checkpoint_frames)
    trainer = meta_impala.make_trainer(config, tmp_path)
    _act_in_update(trainer, 3, _interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert (trainer.frames, trainer.learner.state.counts[0]) == (40, 60)
    assert RunFolder(tmp_path).read_status().get("checkpoint") == (
        "frames-40" if checkpoint_frames else None
    )
    _assert_finished_again(trainer, uninterrupted)


def test_a_further_call_after_an_end_between_an_update_and_its_count(
    tmp_path, uninterrupted, monkeypatch
):
    trainer = meta_impala.make_trainer(make_config(), tmp_path)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(ThreadedSource, "publish", _interrupt)
        trainer.run()
    assert (trainer.frames, trainer.learner.state.counts[0]) == (0, 20)
    _assert_finished_again(trainer, uninterrupted)


def test_cpu_time_of_the_program_before_it_is_not_the_runs(tmp_path):
    def cpu_seconds(frames):
        before = time.process_time()
        meta_impala.make_trainer(make_config(total_frames=frames), tmp_path).run()
        took = time.process_time() - before
        return float(run_helpers.read_metrics(tmp_path)[-1]["cpu_seconds"]), took

    first, took = cpu_seconds(100)
    assert first <= took
    second, took_again = cpu_seconds(200)
    assert first <= second <= took + took_again
