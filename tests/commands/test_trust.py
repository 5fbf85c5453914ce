"""A run folder, an agent or a suite from somebody else names a module: nothing imports it, in any
command, unless this command line names it too or `--trust_modules` is given."""

import importlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from gymnasium.envs import registration
from support import forked_command

from meta_impala import config as config_lib
from meta_impala.config import Config
from meta_impala.errors import UserError
from meta_impala.storage.arrays import write_arrays
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trained_run import AGENT_FORMAT, read_agent_file
from meta_impala.storage.trust import (
    Trust,
    module_of,
    names_modules,
    refuse_modules,
    trusting,
)

ROOT = pathlib.Path(__file__).parents[2]

# The module leaves a mark when it is imported; its name stands where the user's own code does.
MODULE = "evilmod"
_CODE = """
import os, pathlib
pathlib.Path(os.environ["MARK"]).touch()
import gymnasium
from meta_impala.environments.catch import Catch
gymnasium.register("Mine-v0", entry_point=Catch)
"""

NAMES = [
    f"{MODULE}:Mine-v0",
    f" {MODULE}:Mine-v0",
    f"\t\n{MODULE}:Mine-v0 ",
    f"\u00a0{MODULE}:Mine-v0",  # no-break space
    f"\u200b{MODULE}:Mine-v0",  # zero width
    f"\ufeff{MODULE}:Mine-v0",
    f"{MODULE}\uff1aMine-v0",  # fullwidth colon
    f"{MODULE}\ufe55Mine-v0",  # small colon
    "\uff45vilmod:Mine-v0",  # fullwidth letter
    f"{MODULE} : Mine-v0",
    f"{MODULE}:a:Mine-v0",
    f"{MODULE}.below:Mine-v0",
    f"{MODULE}:",
]


def _values(environment: str) -> dict:
    return json.loads(config_lib.to_json(config_lib.resolve(Config()))) | {
        "environment": environment
    }


def _run_folder(path: pathlib.Path, environment: str) -> RunFolder:
    (path / "checkpoints" / "frames-1").mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(_values(environment)))
    found = {
        "environment": "Catch", "protocol": "impala", "starts": "noop", "frames_trained": 1,
        "episodes": 2, "mean": 0.5, "standard_error": 0.1,
    }  # fmt: skip
    (path / "evaluation.json").write_text(json.dumps(found))
    return RunFolder(path)


def _agent_file(path: pathlib.Path, environment: str) -> pathlib.Path:
    about = {
        "format": AGENT_FORMAT, "frames": 1, "updates": 1, "checkpoint": "frames-1",
        "observation_shape": [10, 5], "num_actions": 3,
    }  # fmt: skip
    texts = {"about": json.dumps(about), "config": json.dumps(_values(environment))}
    weights = {"parameters/000/w": np.zeros(10_000, np.float32)}
    write_arrays(path, weights | {name: np.array(text) for name, text in texts.items()})
    return path


def _suite_file(path: pathlib.Path, environment: str) -> pathlib.Path:
    path.write_text(
        'title = "t"\nseeds = [1]\nbaseline = "a"\n'
        f"games = [{json.dumps(environment)}]\n"
        '[[variants]]\nname = "a"\n'
    )
    return path


def _mark(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / f"{MODULE}.py").write_text(_CODE)
    return tmp_path / "mark"


def _start(tmp_path: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), str(tmp_path / "code")])
    return forked_command.run(
        [sys.executable, *arguments],
        light=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path, "MARK": str(tmp_path / "mark")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _command(name: str, tmp_path: pathlib.Path, environment: str) -> list[str]:
    if name == "suite":
        suite = _suite_file(tmp_path / "suite.toml", environment)
        return ["tools/atari_suite.py", str(suite), f"--out={tmp_path / 'out'}"]
    if name == "evaluate --agent":
        agent = _agent_file(tmp_path / "agent.npz", environment)
        return ["-m", "meta_impala.evaluate", f"--agent={agent}"]
    run = _run_folder(tmp_path / "run", environment)
    if name in ("record_starts", "precision_study"):
        out = [f"--out={tmp_path / 'starts.json'}"] if name == "record_starts" else []
        return [f"tools/{name}.py", f"--logdir={run.path}", *out]
    out = [f"--out={tmp_path / 'agent.npz'}"] if name == "export" else []
    return ["-m", f"meta_impala.{name}", f"--logdir={run.path}", *out]


COMMANDS = (
    "train", "evaluate", "evaluate --agent", "explain", "export", "suite", "record_starts",
    "precision_study",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("environment", [f" {MODULE}:Mine-v0", f"{MODULE}\uff1aMine-v0"])
def test_no_command_imports_what_a_file_names(command, environment, tmp_path):
    mark = _mark(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    arguments = _command(command, tmp_path, environment)
    result = _start(tmp_path, *arguments)
    assert not mark.exists(), "the code of the module was run"
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert f"names the module {MODULE}" in result.stderr
    assert "--trust_modules" in result.stderr
    left = {path.name for path in tmp_path.rglob("*")} - {path.name for path in before}
    assert not left & {"out", "starts.json", "metrics.csv", "status.json"}


@pytest.mark.parametrize("command", COMMANDS)
def test_with_trust_modules_every_command_continues(command, tmp_path):
    mark = _mark(tmp_path)
    # The environment is looked for before TensorFlow is imported, which takes seconds.
    (tmp_path / "code" / "tensorflow.py").write_text("raise ImportError('not in this test')")
    arguments = _command(command, tmp_path, f"{MODULE}:Mine-v0")
    dry = ["--dry_run"] if command == "suite" else []
    result = _start(tmp_path, *arguments, "--trust_modules", *dry)
    assert mark.exists(), result.stderr
    assert "names the module" not in result.stderr


def test_typing_the_module_name_to_train_trusts_it(tmp_path):
    mark = _mark(tmp_path)
    (tmp_path / "code" / "tensorflow.py").write_text("raise ImportError('not in this test')")
    arguments = _command("train", tmp_path, f"{MODULE}:Mine-v0")
    other = _start(tmp_path, *arguments, "--environment=CartPole-v1")
    assert f"names the module {MODULE}" in other.stderr and not mark.exists()
    result = _start(tmp_path, *arguments, f"--environment={MODULE}:Mine-v0")
    assert mark.exists() and "names the module" not in result.stderr


def test_a_comparison_imports_no_module(tmp_path):
    mark = _mark(tmp_path)
    run = _run_folder(tmp_path / "run", f"{MODULE}:Mine-v0")
    out = f"--out={tmp_path / 'comparison'}"
    result = _start(tmp_path, "tools/compare_published.py", str(run.path), out, "--nopictures")
    assert not mark.exists() and "Traceback" not in result.stderr


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("setting", ["environment", "network"])
def test_every_spelling_of_a_module_is_recognised(name, setting):
    assert module_of(name)
    with pytest.raises(UserError, match=f"--{setting}=.*names the module evilmod") as caught:
        refuse_modules([(setting, name)], "config.json", Trust())
    assert str(caught.value).isprintable()
    refuse_modules([(setting, name)], "config.json", Trust(everything=True))


ARGUMENTS = [
    '{"env_id": "evilmod:Mine-v0"}',
    '{"a": {"b": [1, {"env_id": "evilmod:Mine-v0"}]}}',
    '{"evilmod:Mine-v0": 1}',
    '{"env_id": "evilmod\\uff1aMine-v0"}',
]


@pytest.mark.parametrize("arguments", ARGUMENTS)
def test_arguments_of_an_environment_name_modules_too(arguments):
    config = Config(environment="GymV26Environment-v0", environment_kwargs=arguments)
    with pytest.raises(UserError, match="--environment_kwargs=.*names the module evilmod,"):
        refuse_modules(config, "config.json", Trust())
    assert names_modules(config) and not names_modules(Config())
    refuse_modules(config, "config.json", Trust(everything=True))
    refuse_modules(config, "config.json", trusting([None, arguments]))
    refuse_modules(config, "config.json", trusting(["evilmod:Other-v0"]))


@pytest.mark.parametrize("arguments", ["", '{"size": 5, "mode": "rgb", "of": [null, 1.5, true]}'])
def test_other_arguments_need_no_trust(arguments):
    refuse_modules([("environment_kwargs", arguments)], "config.json", Trust())


# What is written around a module, and what around that. Gymnasium imports it in most of these.
_RESTS = ("Mine-v0", "ns/Mine-v0", "2048-v0", "8080", "8080/x", "//x.org/m", "\\x", "", " x")
_FORMS = ("{}:{}", " {}:{}", "{} :{}", "\u200b{}:{}", "{}.below:{}", "{}..b:{}", "{}\uff1a{}")
_PLACES = (lambda t: [[t]], lambda t: {"b": {"c": [1, t]}}, lambda t: {t: 1}, lambda t: [{t: [t]}])


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Names of files that can be imported; some are no identifiers."""
    names = (MODULE, "\uff45vilmod", "evil-mod", "12", "C", " evil", "\u200b", "a\uff1ab")
    for name in names:
        (tmp_path / f"{name}.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return names


def _imported_by_gymnasium(text: str, monkeypatch) -> str | None:
    """The module that `gymnasium.make` asks for; None if it asks for none."""

    class Asked(Exception):
        pass

    def ask(name, package=None):
        raise Asked(name)

    with monkeypatch.context() as patch, pytest.raises(BaseException) as caught:
        patch.setattr(importlib, "import_module", ask)
        registration.make(text)
    return caught.value.args[0] if caught.type is Asked else None


def test_whatever_gymnasium_would_import_for_an_argument_is_found(modules, monkeypatch):
    spellings = [form.format(m, r) for form in _FORMS for m in modules for r in _RESTS]
    asked = {text: _imported_by_gymnasium(text, monkeypatch) for text in spellings}
    can_be_imported = {
        text for text, module in asked.items() if module and module.partition(".")[0] in modules
    }
    assert len(can_be_imported) > 100
    names = {form.format(MODULE, rest) for form in _FORMS for rest in _RESTS[:3]}
    for text in sorted(can_be_imported | names):
        for place in _PLACES:
            arguments = json.dumps({"a": place(text)})
            with pytest.raises(UserError, match="names the module ") as caught:
                refuse_modules([("environment_kwargs", arguments)], "config.json", Trust())
            assert "\n" not in str(caught.value)
    assert not {MODULE, "C"} & set(sys.modules)


_HOSTS = ("localhost", "x.org", "host-1", "127.0.0.1", "C", "12", "https", "rediss", "no such")
_ADDRESSES = ("{}:8080", "{}:30", "{}:8080/a/b", "{}://x.org/m", "{}://h:1/m", "{}:\\x", "{}:/x/y",
              "http://{}/m", "http://{}:80/m", "{}:1:2", "{}: ", "file:///{}", "[::1]:80",
              "tcp://{}:5", "time:{}:1", "time:30")  # fmt: skip


def test_addresses_paths_and_times_are_no_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # which may be a place of modules
    for text in [form.format(host) for form in _ADDRESSES for host in _HOSTS]:
        for place in _PLACES:
            arguments = json.dumps({"a": place(text)})
            refuse_modules([("environment_kwargs", arguments)], "config.json", Trust())
            assert not names_modules(Config(environment_kwargs=arguments)), text


def test_a_folder_of_that_name_makes_no_module_of_an_address(tmp_path, monkeypatch):
    (tmp_path / "localhost").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    refuse_modules([("environment_kwargs", '{"a": "localhost:80"}')], "config.json", Trust())
    with pytest.raises(UserError, match="names the module localhost.evil,"):
        refuse_modules([("environment_kwargs", '{"a": "localhost.evil:80"}')], "here", Trust())


@pytest.mark.parametrize("name", NAMES)
def test_folders_and_agents_are_checked_when_they_are_read(name, tmp_path, monkeypatch):
    (tmp_path / f"{MODULE}.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="names the module evilmod|environment"):
        _run_folder(tmp_path / "run", name).load_config()
    with pytest.raises(UserError, match="names the module evilmod|environment"):
        read_agent_file(_agent_file(tmp_path / "a.npz", name))


@pytest.mark.parametrize(
    "name",
    ["Pong", "ALE/Pong-v5", "Catch", "CartPole-v1", "meta_impala/Catch-v0", "auto", "",
     "meta_impala.environments.catch:Catch"],
)  # fmt: skip
def test_shipped_or_registered_environments_need_no_trust(name):
    refuse_modules([("environment", name), ("network", name)], "config.json", Trust())


def test_only_typed_modules_are_trusted():
    trust = trusting([None, "", "Pong", "zoo:A-v0", " zoo.below:B-v0"])
    assert trust.modules == {"zoo", "zoo.below"}
    refuse_modules([("environment", "zoo:C-v0")], "config.json", trust)
    for other in ("zoo2:A", "zoo.other:A", "below:A", "a.zoo:A"):
        with pytest.raises(UserError):
            refuse_modules([("environment", other)], "config.json", trust)
