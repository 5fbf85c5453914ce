"""Files that came from somebody else: real ones, changed at random in their bytes and in the JSON
that they hold. Whatever is in them, the answer is a result or one line, within seconds."""

import contextlib
import copy
import hashlib
import io
import json
import math
import pathlib
import struct
import time
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.helpers import make_agent

from meta_impala import config as config_lib
from meta_impala.config import AgentSettings, resolve_network
from meta_impala.errors import RunFailed, UserError
from meta_impala.evaluation import record as evaluation_record
from meta_impala.evaluation.record import Game, PartialGames
from meta_impala.evaluation.starts import Start, read_starts, recorded_from, write_starts
from meta_impala.storage import arrays
from meta_impala.storage.checkpoint import Checkpoints, identity_of
from meta_impala.storage.manifest import Damaged, verify
from meta_impala.storage.run_folder import RunFolder
from meta_impala.storage.trained_agent import TrainedAgent, load_agent_file, save_agent
from meta_impala.storage.trained_run import open_trained_run, read_agent_file
from meta_impala.training.saved_progress import check_progress

SECONDS = 5.0
EXAMPLES = settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
NAMES = {"environment": "Catch", "protocol": "impala"}


@pytest.fixture(scope="module")
def agent():
    return make_agent()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


def one_line_or_result(read) -> object:
    """The result, or None after an answer in one line; anything else fails."""
    started = time.monotonic()
    try:
        return read()
    except (UserError, RunFailed, Damaged) as error:
        # Damaged is shown as part of a line that is made printable.
        assert isinstance(error, Damaged) or str(error).isprintable()
        return None
    finally:
        assert time.monotonic() - started < SECONDS


# What may stand in a file in place of anything.
STRANGE = st.one_of(
    st.sampled_from(
        [None, True, False, "", "x" * 1000, "\x1b[2J", "\ud800", "\0", [], {}, [[[]]], {"": None},
         0, -1, 2**31, 2**63, 2**64, 10**400, -(10**400), math.inf, -math.inf, math.nan, 1e308, 0.5]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
)  # fmt: skip


def _places(value, path=()) -> list[tuple]:
    """The path of every value within a JSON value."""
    found = [path]
    if isinstance(value, dict):
        entries = list(value.items())
    elif isinstance(value, list):
        entries = list(enumerate(value[:5]))
    else:
        return found
    for key, inner in entries:
        found += _places(inner, (*path, key))
    return found


def _changed(value, path, new):
    if not path:
        return new
    copied = dict(value) if isinstance(value, dict) else list(value)
    copied[path[0]] = _changed(copied[path[0]], path[1:], new)
    return copied


@st.composite
def changed_json(draw, original) -> str:
    """The text of a JSON value in which one or two values are others, or are missing."""
    value = json.loads(json.dumps(original))
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(_places(value)))
        if path and draw(st.booleans()) and draw(st.booleans()):
            inner = value
            for key in path[:-1]:
                inner = inner[key]
            del inner[path[-1]]
        else:
            value = _changed(value, path, copy.deepcopy(draw(STRANGE)))
    return json.dumps(value)


@st.composite
def changed_bytes(draw, original: bytes) -> bytes:
    content = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        index = draw(st.integers(0, max(0, len(content) - 1)))
        kind = draw(st.sampled_from(["flip", "insert", "remove", "cut", "repeat"]))
        if kind == "flip" and content:
            content[index] ^= 1 << draw(st.integers(0, 7))
        elif kind == "insert":
            content[index:index] = draw(st.binary(max_size=8))
        elif kind == "remove":
            del content[index : index + draw(st.integers(1, 64))]
        elif kind == "cut":
            del content[index:]
        else:
            content[index:index] = content[index : index + 64]
    return bytes(content)


# Text files: name -> (what is in a real one, how it is read).


def _read_config(path: pathlib.Path):
    config = RunFolder(path.parent).load_config()
    resolve_network(config, (10, 5))
    config_lib.to_json(config)


def _read_status(path: pathlib.Path):
    folder = RunFolder(path.parent)
    status = folder.read_status()
    assert status.get("frames", 0) >= 0
    folder.write_stopped()
    folder.write_failure(ValueError("x"))
    assert folder.read_status()["state"] == "failed"


def _read_result(path: pathlib.Path):
    found = evaluation_record.read_result(path)
    assert math.isfinite(found["mean"]) and found["episodes"] + found["frames_trained"] < 2**65


def _read_partial(path: pathlib.Path):
    partial = PartialGames(path, {"seed": 1})
    if partial.games:
        definition = {"environment": "Catch", "starts": "noop", "max_episode_frames": None}
        evaluation_record.result(definition, partial.games)
    partial.save()


def _read_starts(path: pathlib.Path):
    found = read_starts(path, **NAMES, num_actions=3)
    assert all(0 <= start.seed < 2**31 and set(start.actions) <= {0, 1, 2} for start in found)
    assert recorded_from(path).isprintable()


def _starts_content(folder) -> dict:
    path = folder / "real_starts.json"
    starts = [Start(i, (0, 1, 2), "abc") for i in range(3)]
    write_starts(path, **NAMES, recorded_from="me", made_with={"a": "1"}, starts=starts)
    return json.loads(path.read_text())


RESULT = {
    "environment": "Catch", "protocol": "impala", "starts": "noop", "frames_trained": 10,
    "episodes": 3, "mean": 0.5, "standard_error": 0.1, "returns": [1.0, 0.0], "rom": None,
}  # fmt: skip
PARTIAL = {"definition": {"seed": 1}, "games": [[0, 1.0, 10], [1, -1.0, 9]]}
STATUS = {"state": "stopped", "frames": 400, "pid": 1, "time": "now", "checkpoint": "frames-400"}
CONFIG = json.loads(config_lib.to_json(config_lib.resolve(config_lib.Config(environment="Catch"))))
TEXTS = {
    "config.json": (CONFIG, _read_config),
    "status.json": (STATUS, _read_status),
    "evaluation.json": (RESULT, _read_result),
    "partial.json": (PARTIAL, _read_partial),
    "starts.json": (None, _read_starts),
}


@pytest.mark.parametrize("name", TEXTS)
def test_json_with_wrong_values_is_read_or_refused_in_one_line(name, folder):
    content, read = TEXTS[name]
    content = content or _starts_content(folder)
    path = folder / name

    @EXAMPLES
    @given(changed_json(content))
    def holds(text):
        path.write_text(text)
        one_line_or_result(lambda: read(path))

    path.write_text(json.dumps(content))
    read(path)  # the real one is accepted
    holds()


@pytest.mark.parametrize("name", TEXTS)
def test_text_with_wrong_bytes_is_read_or_refused_in_one_line(name, folder):
    content, read = TEXTS[name]
    original = json.dumps(content or _starts_content(folder), indent=1).encode()
    path = folder / name

    @EXAMPLES
    @given(changed_bytes(original))
    def holds(changed):
        path.write_bytes(changed)
        one_line_or_result(lambda: read(path))

    holds()


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, "9" * 100_000, "1e99999", "NaN", "", "\0",
     '{"seed": ' + "9" * 5000 + "}", "\ufeff{}", "{}" * 2, '"' + "\\ud800" * 100 + '"'],
)  # fmt: skip
@pytest.mark.parametrize("name", TEXTS)
def test_unusual_json_is_read_or_refused_in_one_line(name, text, folder):
    path = folder / name
    path.write_text(text)
    one_line_or_result(lambda: TEXTS[name][1](path))


# Checkpoints, signed again: a digest says what was saved, not by whom.


@pytest.fixture(scope="module")
def checkpoints(agent, folder):
    state = agent.learner.state
    identity = identity_of(agent.config.part(AgentSettings), agent.description, state)
    made = Checkpoints(folder / "checkpoints", state, 1, identity)
    progress = {"window": {"seconds": 1.0, "returns": [1.0]}, "next_row": 3, "pair": False}
    made.save(progress, {"turn": np.array(1), "actor 0 actions": np.zeros((3, 2), np.int32)})
    return made


def _sign(path: pathlib.Path, content: bytes) -> None:
    (path / "manifest.json").write_bytes(content)
    (path / "manifest.sha256").write_text(hashlib.sha256(content).hexdigest() + "\n")


def test_manifests_with_other_values(checkpoints, agent):
    path = checkpoints.newest
    original = (path / "manifest.json").read_bytes()

    @EXAMPLES
    @given(changed_json(json.loads(original)))
    def holds(text):
        _sign(path, text.encode())

        def read():
            manifest = verify(path, 2**24)
            check_progress(manifest["progress"], path)

        one_line_or_result(read)

    holds()
    _sign(path, original)
    assert verify(path)


@pytest.mark.parametrize("name", ["state.index", "state.data-00000-of-00001", "source.npz"])
def test_checkpoints_with_other_bytes_restore_everything_or_nothing(name, checkpoints, agent):
    """Signed again, so that TensorFlow and the reader of arrays see the damage."""
    path, state = checkpoints.newest, agent.learner.state
    identity = identity_of(agent.config.part(AgentSettings), agent.description, state)
    original, manifest = (path / name).read_bytes(), (path / "manifest.json").read_bytes()

    @settings(EXAMPLES, max_examples=40)
    @given(changed_bytes(original))
    def holds(changed):
        (path / name).write_bytes(changed)
        values = json.loads(manifest)
        digest = hashlib.sha256(changed).hexdigest()
        values["files"][name] = {"bytes": len(changed), "sha256": digest}
        _sign(path, json.dumps(values).encode())
        before = [variable.numpy() for variable in state.variables]
        reader = Checkpoints(path.parent, state, 1, identity)
        restored = one_line_or_result(reader.restore_latest)
        if restored is None:
            for variable, value in zip(state.variables, before, strict=True):
                np.testing.assert_array_equal(variable, value)
        assert all(np.isfinite(v.numpy()).all() for v in state.variables)

    holds()
    (path / name).write_bytes(original)
    _sign(path, manifest)


# Agents.


@pytest.fixture(scope="module")
def agent_path(agent, folder):
    path = folder / "agent.npz"
    exported = TrainedAgent(agent.network, agent.learner.snapshot(), 10, "frames-10")
    save_agent(path, exported, agent.config, agent.description)
    return path


def _load(path: pathlib.Path, agent) -> TrainedAgent:
    read = read_agent_file(path)
    return load_agent_file(path, read.config.part(AgentSettings), agent.description)


def _rewrite(path: pathlib.Path, original: pathlib.Path, **changes) -> None:
    content = arrays.read_arrays(original) | changes
    np.savez(path, **{name: array for name, array in content.items() if array is not None})


def test_agents_with_other_bytes(agent_path, folder):
    path = folder / "changed.npz"

    @EXAMPLES
    @given(changed_bytes(agent_path.read_bytes()))
    def holds(changed):
        path.write_bytes(changed)
        one_line_or_result(lambda: read_agent_file(path))
        with contextlib.suppress(OSError, ValueError):
            arrays.read_arrays(path)

    holds()


@pytest.mark.parametrize("name", ["about", "config"])
def test_agents_with_other_values(name, agent_path, agent, folder):
    path = folder / "changed.npz"
    original = json.loads(str(arrays.read_arrays(agent_path)[name]))

    @EXAMPLES
    @given(changed_json(original))
    def holds(text):
        _rewrite(path, agent_path, **{name: np.array(text)})
        one_line_or_result(lambda: read_agent_file(path))

    holds()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("code", [0x110000, 2**31, 2**32 - 1])
def test_an_array_of_numbers_that_are_no_characters_is_refused(agent_path, tmp_path, code, order):
    """NumPy makes a string of them, and Python raises SystemError where it is used."""
    text = str(arrays.read_arrays(agent_path)["config"])
    codes = np.array([ord(character) for character in text], f"{order}u4")
    codes[text.index("gamma")] = code
    wrong = np.frombuffer(codes.tobytes(), f"{order}U{codes.size}").reshape(())
    path = tmp_path / "changed.npz"
    _rewrite(path, agent_path, config=wrong)
    with pytest.raises(UserError, match="not characters"):
        read_agent_file(path)
    with pytest.raises(ValueError, match="not characters"):
        arrays.read_arrays(path)


BAD_ETAS = [
    np.array([math.nan, 0.9], np.float32),
    np.array([math.inf, 0.9], np.float32),
    np.array([1.5, 0.9], np.float32),
    np.array([-0.1, 0.9], np.float32),
    np.array([0.9], np.float32),
    np.array([0.9, 0.9, 0.9], np.float32),
    np.array([[0.9, 0.9]], np.float32),
    np.array(0.9, np.float32),
    np.array([1, 1]),
    np.array(["0.9", "0.9"]),
    None,
]


@pytest.mark.parametrize("eta", BAD_ETAS)
def test_an_agent_with_an_invalid_eta_is_refused(eta, agent_path, agent, folder):
    path = folder / "changed.npz"
    _rewrite(path, agent_path, eta=eta)
    with pytest.raises(UserError, match="changed.npz: is damaged .*eta"):
        _load(path, agent)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_an_agent_with_weights_that_are_not_finite_is_refused(value, agent_path, agent, folder):
    path = folder / "changed.npz"
    content = arrays.read_arrays(agent_path)
    for name in [name for name in content if name.startswith("parameters/")]:
        array = content[name].copy()
        array.flat[-1] = value
        _rewrite(path, agent_path, **{name: array})
        with pytest.raises(UserError, match="is not finite"):
            _load(path, agent)


@pytest.mark.parametrize("scope", ["global", "state"])
def test_the_eta_of_either_scope_is_accepted(scope, tmp_path):
    agent = make_agent(meta_parameter_scope=scope)
    exported = TrainedAgent(agent.network, agent.learner.snapshot(), 10, "frames-10")
    save_agent(tmp_path / "a.npz", exported, agent.config, agent.description)
    loaded = _load(tmp_path / "a.npz", agent)
    assert loaded.digest() == exported.digest()


HUGE = [{"mlp_sizes": "65536,65536"}, {"core": "lstm", "core_size": 10**5}]


@pytest.mark.parametrize("changes", HUGE)
def test_a_config_of_a_huge_network_takes_no_memory(changes, agent_path, folder, tmp_path):
    path = folder / "changed.npz"
    config = json.loads(str(arrays.read_arrays(agent_path)["config"])) | changes
    _rewrite(path, agent_path, config=np.array(json.dumps(config)))
    with pytest.raises(UserError, match=r"changed.npz: .*core_size="):
        read_agent_file(path)
    newest = tmp_path / "checkpoints" / "frames-10"
    newest.mkdir(parents=True)
    with open(newest / "state.data-00000-of-00001", "wb") as file:
        file.truncate(10**12)  # sparse: it has no weights
    (tmp_path / "config.json").write_text(json.dumps(config | {"environment": "Catch"}))
    with pytest.raises(UserError, match=r"config.json: .*core_size="):
        open_trained_run(str(tmp_path))


# Bombs.


def _npz(path: pathlib.Path, entries: dict[str, bytes], compression=zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def _header(descr: str, shape: str, length: int | None = None) -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", length or len(text)) + text


BOMBS = {
    "zeros": {"x.npy": _header("'<f4'", "(100000000,)") + bytes(400_000_000)},
    "promises": {"x.npy": _header("'<f4'", "(9999999999999,)")},
    "overflows": {"x.npy": _header("'<f4'", "(4294967296, 4294967296)")},
    "negative": {"x.npy": _header("'<f4'", "(-1,)")},
    "wide text": {"x.npy": _header("'<U999999999'", "()")},
    "objects": {"x.npy": _header("'|O'", "(1,)") + b"cos\nsystem\n(S'true'\ntR."},
    "records": {"x.npy": _header("[('a', '|O')]", "(1,)") + bytes(8)},
    "long header": {"x.npy": _header("'<f4'", "()", 65535) + b" " * 65535},
    "nested header": {"x.npy": _header("'<f4'", "(" * 3000 + ")" * 3000)},
    "code in the header": {"x.npy": _header("__import__('os').system('true')", "()")},
    "no header": {"x.npy": b"\x93NUMPY\x01\x00"},
    "many": {f"{i}.npy": b"" for i in range(10_001)},
    "no array": {"x.txt": b"x"},
    "many dimensions": {"x.npy": _header("'<f4'", "(" + "1, " * 500 + ")") + bytes(4)},
}


@pytest.mark.parametrize("name", BOMBS)
def test_decompression_bombs_are_refused_before_they_take_memory(name, tmp_path):
    import resource

    path = tmp_path / "x.npz"
    _npz(path, BOMBS[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    with pytest.raises(ValueError):
        arrays.read_arrays(path)
    with pytest.raises(UserError):
        read_agent_file(path)
    assert time.monotonic() - started < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB


def test_an_array_that_is_longer_than_its_directory_says_is_not_unpacked(tmp_path):
    """The header states a small size, and the compressed data is larger."""
    path = tmp_path / "x.npz"
    content = _header("'<f4'", "(2,)") + bytes(8)
    _npz(path, {"x.npy": content + bytes(50_000_000)})
    raw = path.read_bytes().replace(
        struct.pack("<I", len(content) + 50_000_000), struct.pack("<I", len(content))
    )
    path.write_bytes(raw)
    with pytest.raises(ValueError):
        arrays.read_arrays(path)


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i8", "|b1", "<U7", "|u1"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 0), (2, 3, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_read_as_numpy_reads_them(dtype, shape, order, tmp_path):
    array = np.asarray(np.arange(math.prod(shape)).reshape(shape), order=order).astype(dtype)
    arrays.write_arrays(tmp_path / "x.npz", {"x": array}, compressed=order == "F")
    found = arrays.read_arrays(tmp_path / "x.npz")["x"]
    with np.load(tmp_path / "x.npz") as file:
        np.testing.assert_array_equal(found, file["x"])
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    buffer = io.BytesIO()
    np.savez(buffer, x=array)
    (tmp_path / "y.npz").write_bytes(buffer.getvalue())
    np.testing.assert_array_equal(arrays.read_arrays(tmp_path / "y.npz")["x"], array)


def test_a_checkpoint_that_is_too_large_is_not_even_read(agent, tmp_path):
    state = agent.learner.state
    identity = identity_of(agent.config.part(AgentSettings), agent.description, state)
    for variable in state.variables:
        variable.assign(tf.fill(variable.shape, tf.cast(1, variable.dtype)))
    made = Checkpoints(tmp_path / "checkpoints", state, 1, identity)
    path = made.save({})
    data = path / "state.data-00000-of-00001"
    with open(data, "ab") as file:
        file.truncate(10**12)  # sparse: to read it takes minutes
    values = json.loads((path / "manifest.json").read_text())
    values["files"][data.name]["bytes"] = 10**12
    _sign(path, json.dumps(values).encode())
    started = time.monotonic()
    with pytest.raises(UserError, match="it has 1000000.* bytes; at most"):
        Checkpoints(tmp_path / "checkpoints", state, 1, identity).restore_latest()
    assert time.monotonic() - started < SECONDS


def test_the_games_of_a_partial_file_count_once(tmp_path):
    path = tmp_path / "partial.json"
    games = [[0, 1.0, 10], [0, 5.0, 10], [1, 2.0, 9]]
    path.write_text(json.dumps({"definition": {}, "games": games}))
    assert PartialGames(path, {}).games == [Game(0, 1.0, 10), Game(1, 2.0, 9)]
