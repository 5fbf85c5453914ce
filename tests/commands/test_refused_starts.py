"""A start that is refused leaves nothing behind, whatever it is refused for (fault): one line, exit
code 2, no folder, none above it. What an existing folder holds stays as it is.

The cases run in forks of one process that has imported the command, so that there can be many.
"""

import json
import os
import subprocess
import sys

import pytest
from support.command_helpers import ROOT

_FORKS = """
import json, os, sys, warnings
from meta_impala import command, train, population

for line in sys.stdin:
    arguments = json.loads(line)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writer, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.close(reader)
        sys.argv = ["train", *arguments]
        train.define_flags()
        command.run(train.main)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(json.dumps([code, said]), flush=True)
"""

# What is refused, by the flags that are given beside --logdir; {tmp} is a folder with some files.
REFUSED = {
    "a value out of range": ["--gamma=2"],
    "a value of another type": ["--batch_size=many"],
    "settings that do not fit": ["--batch_size=4", "--envs_per_actor=3"],
    "settings with no room": ["--total_frames=1"],
    "a flag that does not exist": ["--gama=0.9"],
    "a word that is no flag": ["Pong"],
    "a preset that does not exist": ["--preset=none"],
    "a flag file that does not exist": ["--flagfile={tmp}/none"],
    "a flag file that is no text": ["--flagfile={tmp}/bytes"],
    "a flag file that is a folder": ["--flagfile={tmp}"],
    "an environment that does not exist": ["--environment=Pnog"],
    "an environment's module that does not exist": ["--environment=nowhere:A-v0"],
    "an environment's module that fails": ["--environment=raises:A-v0"],
    "an environment's module that ends the program": ["--environment=ends:A-v0"],
    "an id that its module does not register": ["--environment=support.zoo:Missing-v0"],
    "an environment that cannot be made": ["--environment=refused:Raises-v0"],
    "an environment that breaks the contract": ["--environment=refused:OldStep-v0"],
    "an environment with continuous actions": ["--environment=Pendulum-v1"],
    "arguments that an environment does not take": [
        "--environment=CartPole-v1", '--environment_kwargs={"a": 1}'],
    "arguments that are no JSON": ["--environment_kwargs={"],
    "a protocol that does not exist": ["--protocol=other"],
    "meta-parameters that do not exist": ["--meta_parameters=delta"],
    "a network that does not exist": ["--network=deap"],
    "a network for pictures": ["--environment=CartPole-v1", "--network=deep"],
    "a background that no game has": ["--environment=Catch", "--image_scaling=background"],
    "more memory than there is": ["--mlp_sizes=1000000000"],
    "a schedule that does not exist": [
        "--eta_schedule=replay", "--eta_schedule_file={tmp}/none", "--meta_parameters=none"],
    "a schedule that is none": [
        "--eta_schedule=replay", "--eta_schedule_file={tmp}/bytes", "--meta_parameters=none"],
    "a weight that nothing reads": [
        "--environment=Catch", "--meta_objective=bootstrapped", "--meta_kl_cost=1",
        "--total_frames=700"],
    "addresses that are none": ["--learner_addresses=a,b"],
    "one learner's address": ["--learner_index=1"],
    "a cluster that is not there": ["--actors=ray", "--ray_address=127.0.0.1:1"],
    "a time that is none": ["--max_runtime=soon"],
    "signals that are none": ["--stop_signals=KILL"],
    "an exit code that is none": ["--exit_code_stopped=256"],
}  # fmt: skip

_ENVIRONMENTS = """
import gymnasium
from meta_impala.environments.catch import Catch

class Raises(Catch):
    def __init__(self, **named):
        raise FileNotFoundError(2, "No such file", "levels")

class OldStep(Catch):
    def step(self, action):
        return super().step(action)[:4]

gymnasium.register("Raises-v0", entry_point=Raises)
gymnasium.register("OldStep-v0", entry_point=OldStep)
"""


@pytest.fixture(scope="module")
def tmp(tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused")
    (folder / "bytes").write_bytes(b"\x00\xff\n")
    (folder / "raises.py").write_text("raise OSError('no display')")
    (folder / "ends.py").write_text("raise SystemExit('no licence')")
    (folder / "refused.py").write_text(_ENVIRONMENTS)
    return folder


@pytest.fixture(scope="module")
def start(tmp):
    """Starts the trainer with arguments; returns its exit code and what it said."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(tmp)])
    process = subprocess.Popen(
        [sys.executable, "-c", _FORKS], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip

    def start(arguments) -> tuple[int, str]:
        process.stdin.write(json.dumps([a.replace("{tmp}", str(tmp)) for a in arguments]) + "\n")
        process.stdin.flush()
        return tuple(json.loads(process.stdout.readline()))

    yield start
    process.kill()
    process.communicate()


def check(code: int, said: str) -> None:
    assert code == 2, said
    assert said.startswith("error: ") and said.count("\n") == 1, said


# One of each place where a start is refused; the others are slow.
_FIRST = (
    "a value out of range", "a flag that does not exist", "a flag file that is no text",
    "an environment's module that ends the program", "an environment that breaks the contract",
    "more memory than there is", "a schedule that is none", "a weight that nothing reads",
    "a time that is none",
)  # fmt: skip
_KINDS = [
    pytest.param(kind, marks=() if kind in _FIRST else (pytest.mark.slow,), id=kind)
    for kind in REFUSED
]


@pytest.mark.parametrize("kind", _KINDS)
def test_a_refused_start_leaves_no_folder(kind, start, tmp):
    check(*start([f"--logdir={tmp}/new/runs/one", *REFUSED[kind]]))
    assert not (tmp / "new").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", REFUSED)
def test_a_refused_start_leaves_an_existing_folder_as_it_is(kind, start, tmp):
    folder = tmp / "mine"
    folder.mkdir(exist_ok=True)
    (folder / "notes.txt").write_text("mine")
    check(*start([f"--logdir={folder}", *REFUSED[kind]]))
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "logdir",
    ["{tmp}/bytes/run", "~nosuchuser/run"]
    + [
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            "{tmp}/bytes",
            "/dev/null/run",
            "/proc/run",
            "",
            "{tmp}/" + "x" * 300,
            "{tmp}/new/" + "x" * 300,
        )
    ],
)
def test_invalid_run_folders_are_refused(logdir, start, tmp):
    before = sorted(tmp.iterdir())
    check(*start([f"--logdir={logdir}", "--environment=Catch"]))
    assert sorted(tmp.iterdir()) == before
