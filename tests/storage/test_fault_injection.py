"""Fault: every call to the disk fails in turn, or is the last of the process. Only the old or the
new state is ever seen, and the next start works."""

import json
import math
import os
import pathlib
import re
import shutil
import types
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf
from support.faults import FAULTS, Killed, Recorder, number_of_calls, run_with_fault
from support.helpers import make_agent

from meta_impala import config as config_lib
from meta_impala.config import AgentSettings
from meta_impala.errors import RunFailed, UserError
from meta_impala.evaluation import record as evaluation_record
from meta_impala.evaluation.record import Game, PartialGames
from meta_impala.evaluation.starts import Start, read_starts, write_starts
from meta_impala.storage import arrays, files, results_folder
from meta_impala.storage.best_checkpoint import BestCheckpoint
from meta_impala.storage.checkpoint import Checkpoints, identity_of, restore_for_evaluation
from meta_impala.storage.manifest import list_checkpoints, verify
from meta_impala.storage.metrics_table import COLUMNS, read_table
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trained_agent import TrainedAgent, save_agent
from meta_impala.storage.trained_run import read_agent_file
from meta_impala.training import weights_and_biases
from meta_impala.training.metrics import MetricsWriter


@pytest.fixture(scope="module")
def agent():
    return make_agent()


class Case(NamedTuple):
    """Something that writes.

    Attributes:
      prepare: makes the old state in a folder.
      act: writes the new state.
      look: what a reader sees, after whatever happened.
      states: what it may see: the old state first, the new one last.
      again: does the same without a fault, as the next start would; the new state is then seen.
    """

    prepare: Callable[[pathlib.Path], None]
    act: Callable[[pathlib.Path], None]
    look: Callable[[pathlib.Path], object]
    states: list[object]
    again: Callable[[pathlib.Path], None]


def _simple(write: Callable[[pathlib.Path, int], None], look, old, new) -> Case:
    return Case(
        prepare=lambda folder: write(folder, 1),
        act=lambda folder: write(folder, 2),
        look=look,
        states=[old, new],
        again=lambda folder: write(folder, 2),
    )


def _config(seed: int):
    return config_lib.resolve(config_lib.Config(seed=seed))


def _status_case() -> Case:
    def look(folder):
        text = (folder / "status.json").read_text()
        assert json.loads(text)["frames"] == RunFolder(folder).read_status()["frames"]
        return RunFolder(folder).read_status()["frames"]

    def write(folder, number):
        RunFolder(folder).write_status("failed" if number == 2 else "running", number)

    return _simple(write, look, 1, 2)


def _config_case() -> Case:
    return _simple(
        lambda folder, number: RunFolder(folder).save_config(_config(number)),
        lambda folder: RunFolder(folder).load_config().seed,
        1,
        2,
    )


def _result_case() -> Case:
    result = {
        "environment": "Catch", "protocol": "impala", "starts": "noop", "frames_trained": 1,
        "mean": 0.5, "standard_error": None,
    }  # fmt: skip

    def write(folder, number):
        path = folder / "evaluation.json"
        evaluation_record.save_result(path, result | {"episodes": number})

    return _simple(
        write,
        lambda folder: evaluation_record.read_result(folder / "evaluation.json")["episodes"],
        1,
        2,
    )


def _partial_case() -> Case:
    def write(folder, number):
        partial = PartialGames(folder / "partial.json", {"seed": 1})
        for game in range(number):
            if game >= len(partial.games):
                partial.add(Game(game, 1.0, 10))
        partial.save()

    return _simple(
        write, lambda folder: len(PartialGames(folder / "partial.json", {"seed": 1}).games), 1, 2
    )


def _starts_case() -> Case:
    names = {"environment": "Catch", "protocol": "impala"}

    def write(folder, number):
        starts = [Start(i, (0, 1), "x") for i in range(number)]
        write_starts(
            folder / "starts.json", **names, recorded_from="me", made_with={}, starts=starts
        )

    return _simple(
        write,
        lambda folder: len(read_starts(folder / "starts.json", **names, num_actions=3)),
        1,
        2,
    )


def _arrays_case() -> Case:
    return _simple(
        lambda folder, number: arrays.write_arrays(folder / "a.npz", {"x": np.arange(number)}),
        lambda folder: len(arrays.read_arrays(folder / "a.npz")["x"]),
        1,
        2,
    )


class _Figure:
    """As matplotlib writes a figure: in several parts."""

    def __init__(self, number: int) -> None:
        self._number = number

    def savefig(self, file, **_) -> None:
        for _ in range(3):
            file.write(bytes([self._number]) * 2**20)


def _figure_case() -> Case:
    return _simple(
        lambda folder, number: results_folder.save_figure(_Figure(number), folder / "f.png"),
        lambda folder: set((folder / "f.png").read_bytes()),
        {1},
        {2},
    )


def _text_case() -> Case:
    return _simple(
        lambda folder, number: results_folder.write_text(folder / "r.md", "γ" * number),
        lambda folder: (folder / "r.md").read_text("utf-8"),
        "γ",
        "γγ",
    )


def _stacks_case() -> Case:
    return _simple(
        lambda folder, number: RunFolder(folder).write_stacks("x" * number),
        lambda folder: len((folder / "stacks.txt").read_text()),
        1,
        2,
    )


def _record_id_case() -> Case:
    """The first start makes the id, and every later one reads it."""

    def look(folder):
        path = folder / "wandb" / "record_id"
        assert not path.exists() or re.fullmatch(r"[0-9a-f]{32}\n", path.read_text())
        return path.exists()

    def act(folder):
        assert weights_and_biases.record_id(RunFolder(folder))

    return Case(lambda folder: (folder / "wandb").mkdir(), act, look, [False, True], act)


def _video_case() -> Case:
    """What ffmpeg has written aside takes the place of the video."""

    def write(folder, number):
        path = folder / "v.mp4"
        aside = files.aside_of(path)
        aside.write_bytes(bytes([number]) * 2**20)
        files.put_in_place(aside, path)

    return _simple(write, lambda folder: set((folder / "v.mp4").read_bytes()), {1}, {2})


def _best_case(frames: int) -> Case:
    """The games of a candidate, saved at 2 frames, are over; their row is in the table.

    Args:
      frames: of the best before; from 2 on of a part of the run that was lost.
    """

    def prepare(folder):
        for path, mean_return in (
            (folder / "best" / f"frames-{frames}", 1.0),
            (folder / "best" / "candidate" / "frames-2", None),
        ):
            path.mkdir(parents=True)
            (path / "state.index").write_text(f"{mean_return}")
            if mean_return is not None:
                (path / "evaluation.json").write_text(json.dumps({"mean_return": mean_return}))

    def act(folder):
        best = BestCheckpoint.__new__(BestCheckpoint)
        best._folder = folder / "best"
        best.rate(2, 2.0)

    def look(folder):
        found = list_checkpoints(folder / "best")
        contents = {(path / "state.index").read_text() for path in found}  # every one is whole
        return "None" if "None" in contents else "".join(contents)

    def again(folder):
        BestCheckpoint(
            folder / "best",
            types.SimpleNamespace(counts=(2, 1)),
            {},
            lambda frames: {2: 2.0}.get(frames, -math.inf),
        )
        assert [path.name for path in (folder / "best").iterdir()] == ["frames-2"]

    # Between two renames the new one alone, not yet in its place.
    states = ["1.0", "", "None"] if frames == 2 else ["1.0", "None"]
    return Case(prepare, act, look, states, again)


def _appended_case() -> Case:
    """Histories and costs: lines are added one by one, and a torn one is left behind."""

    def prepare(folder):
        (folder / "h.jsonl").write_bytes(b"one\ntor")

    def act(folder):
        files.append_line(folder / "h.jsonl", "two")

    def look(folder):
        lines = (folder / "h.jsonl").read_text().splitlines()
        assert lines[:2] == ["one", "tor"]
        return bool(lines[2:]) and set(lines[2:]) == {"two"}

    return Case(prepare, act, look, [False, True], act)


_LIGHT = {
    "stacks": _stacks_case,
    "record id": _record_id_case,
    "video": _video_case,
    "best checkpoint": lambda: _best_case(1),
    "best checkpoint of the same frames": lambda: _best_case(2),
    "best checkpoint of later frames": lambda: _best_case(3),
    "appended line": _appended_case,
    "config": _config_case,
    "status": _status_case,
    "result": _result_case,
    "partial games": _partial_case,
    "starts": _starts_case,
    "arrays": _arrays_case,
    "figure": _figure_case,
    "text": _text_case,
}


def _exported(agent, number: int) -> TrainedAgent:
    return TrainedAgent(agent.network, agent.learner.snapshot(), number, f"frames-{number}")


def _export_case(agent) -> Case:
    def look(folder):
        path = folder / "agent.npz"
        assert read_agent_file(path).config == agent.config
        content = arrays.read_arrays(path)
        assert len(content) == 3 + len(agent.network.trainable_variables)
        return json.loads(str(content["about"]))["frames"]

    return _simple(
        lambda folder, number: save_agent(
            folder / "agent.npz", _exported(agent, number), agent.config, agent.description
        ),
        look,
        1,
        2,
    )


def _row(frames: int) -> dict[str, float]:
    return dict.fromkeys(COLUMNS, 0.5) | {"frames": frames}


def _writer(folder: pathlib.Path, frames: int) -> MetricsWriter:
    return MetricsWriter(folder / "metrics.csv", folder / "tensorboard", frames)


def _metrics_case(agent) -> Case:
    """A start with a damaged file and rows to cut, then two rows, flushed."""

    def prepare(folder):
        writer = _writer(folder, 0)
        for frames in (10, 20, 30):
            writer.write(_row(frames))
        writer.close()
        with open(folder / "metrics.csv", "ab") as file:
            file.write(b"\0\0\n")

    def act(folder):
        writer = _writer(folder, 20)
        writer.write(_row(25))
        writer.write(_row(35))
        writer.sync()
        writer.close()

    def look(folder):
        return [int(row["frames"]) for row in read_table(folder / "metrics.csv").rows]

    states = [[10, 20, 30], [10, 20], [10, 20, 25], [10, 20, 25, 35]]
    return Case(prepare, act, look, states, act)


def _fill(state, number: int) -> None:
    for variable in state.variables:
        variable.assign(tf.fill(variable.shape, tf.cast(number, variable.dtype)))


def _checkpoint_case(agent) -> Case:
    state = agent.learner.state
    identity = identity_of(agent.config.part(AgentSettings), agent.description, state)

    def save(folder, number):
        checkpoints = Checkpoints(folder / "checkpoints", state, 2, identity)
        _fill(state, number)
        checkpoints.save({"number": number}, {"of the actors": np.arange(number)})

    def prepare(folder):
        for number in (1, 2):
            save(folder, number)

    def look(folder):
        paths = list_checkpoints(folder / "checkpoints")
        numbers = [verify(path)["progress"]["number"] for path in paths]  # every one is whole
        assert numbers == sorted(numbers, reverse=True)
        return numbers[0]

    return Case(prepare, lambda f: save(f, 3), look, [2, 3], lambda f: save(f, 3))


def _replaced_checkpoint_case(agent) -> Case:
    """More updates at the same frames (`sample_reuse`), and a single checkpoint is kept."""
    state = agent.learner.state
    identity = identity_of(agent.config.part(AgentSettings), agent.description, state)

    def save(folder, updates):
        checkpoints = Checkpoints(folder / "checkpoints", state, 1, identity)
        if list_checkpoints(folder / "checkpoints"):
            checkpoints.restore_latest()
        _fill(state, updates)
        state.frames.assign(1)
        checkpoints.save({"number": updates}, {"of the actors": np.arange(updates)})

    def look(folder):
        restore_for_evaluation(folder / "checkpoints", state, identity)  # before the next start
        read = int(state.updates.numpy())
        saved = Checkpoints(folder / "checkpoints", state, 1, identity).restore_latest()
        assert int(state.updates.numpy()) == saved.progress["number"] == read
        return saved.progress["number"]

    return Case(lambda f: save(f, 2), lambda f: save(f, 3), look, [2, 3], lambda f: save(f, 3))


_HEAVY = {
    "export": _export_case,
    "metrics": _metrics_case,
    "checkpoint": _checkpoint_case,
    "replaced checkpoint": _replaced_checkpoint_case,
}


def _try_every_fault(case: Case, tmp_path: pathlib.Path) -> int:
    old = tmp_path / "old"
    old.mkdir()
    case.prepare(old)
    shutil.copytree(old, tmp_path / "clean")
    count = number_of_calls(lambda: case.act(tmp_path / "clean"))
    assert case.look(tmp_path / "clean") == case.states[-1]
    for fault in FAULTS:
        for at in range(count):
            folder = tmp_path / "fault"
            shutil.copytree(old, folder)
            error = run_with_fault(lambda: case.act(folder), at, fault)  # noqa: B023
            where = f"{fault} at call {at} of {count}: {error!r}"
            if fault == "error":
                assert error is None or isinstance(error, RunFailed | UserError | OSError), where
                if "it is written" in str(error) and ".damaged: it" not in str(error):
                    assert case.look(folder) != case.states[0], where
            else:
                assert isinstance(error, Killed), where
            assert case.look(folder) in case.states, where
            case.again(folder)  # the next start
            assert case.look(folder) == case.states[-1], where
            assert not [path for path in folder.iterdir() if path.name.startswith(".f.")]
            shutil.rmtree(folder)
    return count


@pytest.mark.parametrize("name", _LIGHT)
def test_every_fault_in_writing_a_file(name, tmp_path):
    assert _try_every_fault(_LIGHT[name](), tmp_path) >= 3


@pytest.mark.parametrize("name", _HEAVY)
def test_every_fault_in_writing_a_run(name, agent, tmp_path):
    assert _try_every_fault(_HEAVY[name](agent), tmp_path) >= 10


# The best checkpoint was flushed when it was saved; a line is appended in place.
@pytest.mark.parametrize(
    "name", sorted(n for n in {*_LIGHT, *_HEAVY} if not n.startswith(("best", "appended")))
)
def test_a_file_is_flushed_before_and_its_folder_after_the_rename(name, agent, tmp_path):
    case = _LIGHT[name]() if name in _LIGHT else _HEAVY[name](agent)
    case.prepare(tmp_path)
    events = []
    opened: dict[int, str] = {}

    class Order(Recorder):
        def wrap(self, call, function):
            def wrapped(*arguments, **named):
                result = function(*arguments, **named)
                if call == "open":
                    opened[result] = str(arguments[0])
                elif call in ("write", "fsync"):
                    events.append((call, opened.get(arguments[0], "")))
                elif call in ("replace", "rename"):
                    events.append(("rename", str(arguments[0]), str(arguments[1])))
                return result

            return wrapped

    with Order().active():
        case.act(tmp_path)
    renames = [(i, event) for i, event in enumerate(events) if event[0] == "rename"]
    assert renames
    for index, (_, source, target) in renames:
        name_of_target = os.path.basename(target)
        if name_of_target.startswith((".removing", ".replaced")) or target.endswith(".damaged"):
            continue
        parent = os.path.dirname(target)
        assert ("fsync", parent) in events[index:], f"the folder of {target}"
        before = events[:index]
        writes = [i for i, event in enumerate(before) if event == ("write", source)]
        flushes = [i for i, event in enumerate(before) if event == ("fsync", source)]
        assert flushes and (not writes or flushes[-1] > writes[-1]), source
