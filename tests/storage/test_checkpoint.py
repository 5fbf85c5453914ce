"""What a checkpoint survives (fault: bits flipped, files cut and gone, disks full), what it refuses
(another run, another version, hostile files), and that nothing is ever half-restored."""

import errno
import hashlib
import json
import os
import pathlib
import shutil
import types
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from support.helpers import make_agent

from meta_impala.algorithm.optimizers import CorrectedRMSProp
from meta_impala.config import AgentSettings, Config, resolve
from meta_impala.errors import RunFailed, UserError
from meta_impala.storage import arrays as arrays_lib
from meta_impala.storage import checkpoint as checkpoint_lib
from meta_impala.storage import trained_run
from meta_impala.storage.checkpoint import (
    Checkpoints,
    identity_of,
    list_checkpoints,
    restore_for_evaluation,
    verify,
)
from meta_impala.storage.manifest import newest_version, write_manifest
from meta_impala.storage.run_folder import RunFolder


@pytest.fixture(scope="module")
def agent():
    return make_agent()


@pytest.fixture(scope="module")
def identity(agent):
    return identity_of(agent.config.part(AgentSettings), agent.description, agent.learner.state)


def fill(state, number: int) -> None:
    """Makes every variable tell the number."""
    for variable in state.variables:
        variable.assign(tf.fill(variable.shape, tf.cast(number, variable.dtype)))


def values(state) -> set[float]:
    return set(np.concatenate([variable.numpy().ravel() for variable in state.variables]).tolist())


@pytest.fixture(scope="module")
def saved(agent, identity, tmp_path_factory):
    """A folder with checkpoints 1, 2 and 3, whose variables are all 1, 2 and 3."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoints = Checkpoints(folder, agent.learner.state, 3, identity)
    for number in (1, 2, 3):
        fill(agent.learner.state, number)
        checkpoints.save({"number": number}, {"of the actors": np.arange(number)})
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def restore(agent, identity, folder):
    fill(agent.learner.state, 7)
    return Checkpoints(folder, agent.learner.state, 3, identity).restore_latest()


def test_everything_is_restored_also_by_tensorflow_alone(agent, identity, folder):
    restored = restore(agent, identity, folder)
    assert (restored.path.name, restored.progress) == ("frames-3", {"number": 3})
    np.testing.assert_array_equal(restored.source["of the actors"], [0, 1, 2])
    assert values(agent.learner.state) == {3}
    fill(agent.learner.state, 7)
    plain = tf.train.Checkpoint(learner=agent.learner.state)
    plain.read(str(folder / "frames-2" / "state")).assert_consumed()
    assert values(agent.learner.state) == {2}


@pytest.mark.parametrize("name", ["lr=[0.1]", "a*b?", "back\\slash", "["])
def test_a_folder_whose_name_is_a_pattern_is_read(agent, identity, tmp_path, name):
    """TensorFlow takes the path that it reads from, not the one that it writes to, as a pattern."""
    state, folder = agent.learner.state, tmp_path / name / "checkpoints"
    folder.parent.mkdir()
    checkpoints = Checkpoints(folder, state, 3, identity)
    for number in (1, 2):
        fill(state, number)
        checkpoints.save({"number": number}, {"of the actors": np.arange(number)})
    before = set(os.listdir("/proc/self/fd"))
    restored = restore(agent, identity, folder)
    assert (restored.path, restored.progress) == (folder / "frames-2", {"number": 2})
    assert values(state) == {2}
    fill(state, 7)
    assert restore_for_evaluation(folder, state, identity) == folder / "frames-2"
    assert values(state) == {2}
    _flip(folder / "frames-2" / "state.index")
    assert restore(agent, identity, folder).path.name == "frames-1"
    assert set(os.listdir("/proc/self/fd")) == before


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-1])


def _empty(path):
    path.write_bytes(b"")


def _flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


FILES = (
    "state.index",
    "state.data-00000-of-00001",
    "source.npz",
    "manifest.json",
    "manifest.sha256",
)


@pytest.mark.parametrize("damage", [_truncate, _empty, _flip, os.unlink])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    agent, identity, folder, capsys, name, damage
):
    path = folder / "frames-3" / name
    damage(path)
    before = path.read_bytes() if path.exists() else None
    restored = restore(agent, identity, folder)
    assert restored.path.name == "frames-2"
    assert values(agent.learner.state) == {2}
    warning = capsys.readouterr().err
    assert "frames-3 is damaged" in warning and "using frames-2" in warning
    assert name.split(".")[0] in warning
    # Set aside as it was: it does not stand in the way, and can be looked into.
    aside = folder / "frames-3.damaged" / name
    assert (aside.read_bytes() if aside.exists() else None) == before
    assert [path.name for path in list_checkpoints(folder)] == ["frames-2", "frames-1"]


def test_a_flipped_bit_in_the_manifest_is_damage(folder):
    path = folder / "frames-3" / "manifest.json"
    content = path.read_bytes()
    for index in range(0, len(content), 37):
        flipped = bytearray(content)
        flipped[index] ^= 1
        path.write_bytes(flipped)
        with pytest.raises(checkpoint_lib.Damaged):
            verify(path.parent)


def test_when_all_are_damaged_nothing_is_touched(agent, identity, folder):
    for path in list_checkpoints(folder):
        _flip(path / "state.data-00000-of-00001")
    with pytest.raises(UserError, match="every checkpoint is damaged") as caught:
        restore(agent, identity, folder)
    assert "\n" not in str(caught.value)
    assert all(f"frames-{number}: state.data" in str(caught.value) for number in (1, 2, 3))
    assert values(agent.learner.state) == {7}
    assert sorted(path.name for path in folder.iterdir()) == ["frames-1", "frames-2", "frames-3"]


def _sign(path, **changes) -> None:
    """Changes a manifest, and its digest with it."""
    manifest = json.loads((path / "manifest.json").read_text()) | changes
    content = json.dumps(manifest).encode()
    (path / "manifest.json").write_bytes(content)
    (path / "manifest.sha256").write_text(hashlib.sha256(content).hexdigest() + "\n")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("environment", "ALE/Pong-v5", r"environment ALE/Pong-v5 \(here Catch\)"),
        ("protocol", "machado", r"protocol machado \(here impala\)"),
        ("number of actions", 18, r"number of actions 18 \(here 3\)"),
        ("network's torso", "deep", r"network's torso deep \(here mlp\)"),
        ("learned of η", "none", r"learned of η none \(here gamma,lambda\)"),
        ("variables", ["w:0 float32 [2]"], r"variables w:0 float32 \[2\] \(here .*float32"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_with_the_difference(
    agent, identity, folder, name, value, message
):
    _sign(folder / "frames-3", identity=identity | {name: value})
    with pytest.raises(UserError, match=message):
        restore(agent, identity, folder)
    # Not passed over as if it were damaged.
    assert [path.name for path in list_checkpoints(folder)][0] == "frames-3"
    assert values(agent.learner.state) == {7}


def test_a_checkpoint_of_another_format_is_refused(agent, identity, folder, tmp_path):
    _sign(folder / "frames-3", format=3, meta_impala="9.9")
    with pytest.raises(UserError, match=r"of format 3 \(meta_impala 9.9\).* reads format 2"):
        restore(agent, identity, folder)
    (tmp_path / "frames-100.index").touch()
    with pytest.raises(UserError, match="checkpoints of format 1"):
        restore(agent, identity, tmp_path)


@pytest.mark.parametrize(
    "manifest",
    [
        {"files": {"../../config.json": {"bytes": 1, "sha256": ""}}},
        {"files": None},
        {"progress": 3},
        {"identity": []},
        {"format": None},
    ],
)
def test_a_hostile_manifest_is_damage_or_another_format(agent, identity, folder, manifest):
    _sign(folder / "frames-3", **manifest)
    if "format" in manifest:
        with pytest.raises(UserError, match="format None"):
            restore(agent, identity, folder)
    else:
        assert restore(agent, identity, folder).path.name == "frames-2"


def _resign(path) -> None:
    """Gives files that were changed the digests that they now have."""
    files = {
        name: {
            "bytes": (path / name).stat().st_size,
            "sha256": hashlib.sha256((path / name).read_bytes()).hexdigest(),
        }
        for name in ("source.npz", "state.data-00000-of-00001", "state.index")
    }
    _sign(path, files=files)


class Bomb:
    def __reduce__(self):
        return os.system, ("touch /tmp/meta_impala_was_here",)


def test_arrays_are_never_unpickled_and_bounded(agent, identity, folder, tmp_path):
    bomb = np.array([Bomb()], dtype=object)
    path = folder / "frames-3" / "source.npz"
    np.savez(path, bomb=bomb)
    _resign(path.parent)
    assert restore(agent, identity, folder).path.name == "frames-2"
    assert values(agent.learner.state) == {2}
    assert not os.path.exists("/tmp/meta_impala_was_here")
    with pytest.raises(ValueError):
        arrays_lib.write_arrays(tmp_path / "a.npz", {"bomb": bomb})

    # A small file that would unpack to much.
    with zipfile.ZipFile(tmp_path / "b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros.npy", bytes(10_000_000))
    with pytest.raises(ValueError, match="would unpack to"):
        arrays_lib.read_arrays(tmp_path / "b.npz", max_bytes=1_000_000)
    # A header that promises more than there is.
    np.save(tmp_path / "c.npy", np.zeros(3))
    header = (tmp_path / "c.npy").read_bytes().replace(b"(3,), }", b"(9999999999999,), }")
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        archive.writestr("c.npy", header)
    with pytest.raises(ValueError):
        arrays_lib.read_arrays(tmp_path / "c.npz")
    (tmp_path / "d.npz").write_bytes(b"\x80\x04not a zip file")
    with pytest.raises(ValueError, match="not a file of arrays"):
        arrays_lib.read_arrays(tmp_path / "d.npz")


def test_a_checkpoint_that_is_not_finite_is_neither_saved_nor_restored(agent, identity, folder):
    state = agent.learner.state
    checkpoints = Checkpoints(folder, state, 3, identity)
    fill(state, 9)
    slot = state.slots["mean_squares"][0]
    slot.assign(tf.fill(slot.shape, float("nan")))
    with pytest.raises(RunFailed, match="mean_squares:0 is not finite"):
        checkpoints.save({})
    assert len(list(folder.iterdir())) == 3
    # As an earlier version might have saved it.
    tf.train.Checkpoint(learner=state).write(str(folder / "frames-3" / "state"))
    _resign(folder / "frames-3")
    assert restore(agent, identity, folder).path.name == "frames-2"


def test_incomplete_checkpoints_are_removed_and_never_read(agent, identity, folder):
    shutil.copytree(folder / "frames-3", folder / ".saving-1234")
    os.rename(folder / "frames-3", folder / ".removing-frames-3")
    (folder / "frames-x").mkdir()
    (folder / "frames-9").touch()
    assert restore(agent, identity, folder).path.name == "frames-2"
    assert sorted(path.name for path in folder.iterdir()) == [
        "frames-1", "frames-2", "frames-9", "frames-x",
    ]  # fmt: skip


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "tensorflow"])
def test_a_full_disk_leaves_the_checkpoints_before(agent, identity, folder, monkeypatch, call):
    state = agent.learner.state
    checkpoints = Checkpoints(folder, state, 3, identity)
    fill(state, 4)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full_tensorflow(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    with monkeypatch.context() as patched:
        if call == "tensorflow":
            patched.setattr(tf.train.Checkpoint, "write", full_tensorflow)
        else:
            patched.setattr(os, call, full)
        with pytest.raises(RunFailed, match=r"frames-4: cannot be saved \(No space left"):
            checkpoints.save({})
    assert sorted(path.name for path in folder.iterdir()) == ["frames-1", "frames-2", "frames-3"]
    assert all(verify(path) for path in list_checkpoints(folder))
    assert checkpoints.save({}).name == "frames-4"  # once there is room
    assert [path.name for path in list_checkpoints(folder)] == ["frames-4", "frames-3", "frames-2"]


def test_saving_twice_keeps_the_first_and_an_unknown_folder_is_renamed(agent, identity, folder):
    state = agent.learner.state
    fill(state, 3)
    checkpoints = Checkpoints(folder, state, 3, identity)
    assert checkpoints.restore_latest().path.name == "frames-3"
    modified = (folder / "frames-3").stat().st_mtime_ns
    checkpoints.save({"number": 99})
    assert (folder / "frames-3").stat().st_mtime_ns == modified
    (folder / "frames-8").mkdir()
    (folder / "frames-8" / "file").touch()
    fill(state, 8)
    assert checkpoints.save({}).name == "frames-8"
    assert (folder / "frames-8.damaged" / "file").exists()
    assert verify(folder / "frames-8")


def _with_updates(state, updates: int) -> None:
    """More updates on the batch of frame 3: the frames stand still (`sample_reuse`)."""
    fill(state, updates)
    state.frames.assign(3)


def test_more_updates_on_one_batch_replace_the_checkpoint_of_its_frames(agent, identity, folder):
    state = agent.learner.state
    fill(state, 3)
    checkpoints = Checkpoints(folder, state, 3, identity)
    checkpoints.restore_latest()
    for updates in (4, 5):
        _with_updates(state, updates)
        assert checkpoints.save({"number": updates}).name == "frames-3"
        assert [path.name for path in list_checkpoints(folder)] == ["frames-3", "frames-2",
                                                                    "frames-1"]  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == ["frames-1", "frames-2", "frames-3"]
    assert restore(agent, identity, folder).progress == {"number": 5}
    assert int(state.updates.numpy()) == 5 and values(state) == {3, 5}


def test_a_checkpoint_that_was_to_be_replaced_comes_back(agent, identity, folder):
    os.rename(folder / "frames-3", folder / ".replaced-frames-3")
    shutil.copytree(folder / "frames-2", folder / ".replaced-frames-2")
    assert restore(agent, identity, folder).path.name == "frames-3"
    assert sorted(path.name for path in folder.iterdir()) == ["frames-1", "frames-2", "frames-3"]


def _read(agent, identity, folder) -> int:
    """The updates of what an evaluation reads, as it would beside the training of this state."""
    state = agent.learner.state
    before = [variable.numpy() for variable in state.variables]
    assert restore_for_evaluation(folder, state, identity) == folder / "frames-3"
    updates = int(state.updates.numpy())
    assert values(state) == {3, updates}
    for variable, value in zip(state.variables, before, strict=True):
        variable.assign(value)
    return updates


@pytest.fixture
def single(agent, identity, tmp_path):
    """The trainer's checkpoints in a folder that keeps one, of 3 frames and 3 updates."""
    checkpoints = Checkpoints(tmp_path / "checkpoints", agent.learner.state, 1, identity)
    fill(agent.learner.state, 3)
    checkpoints.save({})
    return checkpoints


def test_the_only_checkpoint_can_be_read_while_another_takes_its_place(
    agent, identity, single, tmp_path, monkeypatch
):
    folder, rename, seen = tmp_path / "checkpoints", os.rename, []

    def look():
        assert len(list_checkpoints(folder)) == 1
        assert newest_version(folder)[0] == "frames-3"
        assert RunFolder(tmp_path).has_checkpoint()
        seen.append(_read(agent, identity, folder))

    def rename_and_look(*names):
        look()
        rename(*names)
        look()

    monkeypatch.setattr(os, "rename", rename_and_look)
    _with_updates(agent.learner.state, 4)
    single.save({})
    assert seen == [3, 3, 3, 4]
    assert [path.name for path in folder.iterdir()] == ["frames-3"]


def test_the_only_checkpoint_can_be_read_after_a_kill_between_two_renames(
    agent, identity, folder, tmp_path, capsys
):
    for name in ("frames-1", "frames-2"):
        shutil.rmtree(folder / name)
    os.rename(folder / "frames-3", folder / ".replaced-frames-3")
    fill(agent.learner.state, 7)
    assert restore_for_evaluation(folder, agent.learner.state, identity) == folder / "frames-3"
    assert values(agent.learner.state) == {3} and capsys.readouterr().err == ""
    assert [path.name for path in folder.iterdir()] == [".replaced-frames-3"], "it is only read"
    assert RunFolder(tmp_path).has_checkpoint()
    _flip(folder / ".replaced-frames-3/state.index")
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        restore_for_evaluation(folder, agent.learner.state, identity)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_checkpoint_that_is_replaced_while_it_is_read_is_read_again(
    agent, identity, single, tmp_path, monkeypatch, capsys, moment
):
    """A reader meets files of both: their digests differ, or it has checked those of the old."""
    state, folder, read = agent.learner.state, tmp_path / "checkpoints", []
    shutil.copytree(folder, tmp_path / "old")
    _with_updates(state, 4)
    single.save({})

    def replaced_meanwhile(path, *bounds):
        manifest = verify(path, *bounds)
        read.append(path)
        if len(read) > 1:
            return manifest
        shutil.rmtree(folder)
        shutil.move(tmp_path / "new", folder)
        if moment == "before":
            raise checkpoint_lib.Damaged("state.index does not match its digest")
        return manifest

    shutil.move(folder, tmp_path / "new")
    shutil.move(tmp_path / "old", folder)
    monkeypatch.setattr(checkpoint_lib, "verify", replaced_meanwhile)
    assert _read(agent, identity, folder) == 4
    assert len(read) == 2 and capsys.readouterr().err == ""


def test_a_moment_without_a_checkpoint_is_waited_for(agent, identity, folder, monkeypatch):
    looks = []

    def look(path):
        looks.append(path)
        return [] if len(looks) < 3 else list_checkpoints(path)

    monkeypatch.setattr(checkpoint_lib, "list_checkpoints", look)
    state = agent.learner.state
    assert restore_for_evaluation(folder, state, identity) == folder / "frames-3"
    with pytest.raises(UserError, match="no checkpoint yet; train first"):
        restore_for_evaluation(folder.parent, state, identity)


def test_a_checkpoint_that_is_gone_does_not_make_the_network_too_large(
    folder, tmp_path, monkeypatch
):
    looks = []

    def look(path):
        looks.append(path)
        return [path / "frames-9"] if len(looks) == 1 else list_checkpoints(path)

    monkeypatch.setattr(trained_run, "list_checkpoints", look)
    config = resolve(Config(environment="Catch", network="mlp", mlp_sizes="8"))
    trained_run.refuse_larger_network(RunFolder(tmp_path), config, (3, 2))
    assert len(looks) == 2
    shutil.rmtree(folder)
    (folder / "frames-1").mkdir(parents=True)
    with pytest.raises(UserError, match="but there are 0$"):
        trained_run.refuse_larger_network(RunFolder(tmp_path), config, (3, 2))


def test_a_file_system_that_reports_no_blocks_does_not_make_the_network_too_large(
    folder, tmp_path, monkeypatch
):
    """Such as FUSE, or ZFS before it has written them."""
    lstat = pathlib.Path.lstat

    def without_blocks(path):
        status = lstat(path)
        names = [name for name in dir(status) if name.startswith("st_")]
        known = {name: getattr(status, name) for name in names}
        return types.SimpleNamespace(**known | {"st_blocks": 0})

    config = resolve(Config(environment="Catch", network="mlp", mlp_sizes="8"))
    wider = resolve(Config(environment="Catch", network="mlp", mlp_sizes="4096,4096"))
    monkeypatch.setattr(pathlib.Path, "lstat", without_blocks)
    trained_run.refuse_larger_network(RunFolder(tmp_path), config, (3, 2))
    with pytest.raises(UserError, match="the network would have 67,"):
        trained_run.refuse_larger_network(RunFolder(tmp_path), wider, (3, 2))


# Checkpoints of older versions.


def as_saved_by_an_older_version(agent, folder):
    """Saves the state as before the meta-optimiser's RMSProp had a count, and e_η a place."""
    state = agent.learner.state
    older, younger = state.as_older()
    assert [variable.name for variable, _ in younger] == ["count:0"]
    identity = identity_of(agent.config.part(AgentSettings), agent.description, state)
    identity["variables"] = [v for v in identity["variables"] if v not in ("count:0 int64 []",)]
    identity = {
        name: value
        for name, value in identity.items()
        if name not in ("network's eta_embedding_place", "network's num_embedded")
    }
    path = folder / f"frames-{int(state.frames.numpy())}"
    path.mkdir(parents=True)
    tf.train.Checkpoint(learner=older).write(str(path / "state"))
    names = [name for name, _ in tf.train.list_variables(str(path / "state"))]
    assert not any("meta_slots/count" in name for name in names)
    assert any("meta_slots/mean_squares" in name for name in names)
    write_manifest(path, identity, {"number": 3})
    return path


def test_a_checkpoint_before_the_corrected_meta_rmsprop_is_restored(tmp_path):
    agent = make_agent(meta_optimizer="rmsprop", eta_embedding_place="heads")
    state = agent.learner.state
    fill(state, 3)
    as_saved_by_an_older_version(agent, tmp_path)
    fill(state, 7)
    identity = identity_of(agent.config.part(AgentSettings), agent.description, state)
    restored = Checkpoints(tmp_path, state, 3, identity).restore_latest()
    assert restored.progress == {"number": 3}
    (count,) = state.meta_slots["count"]
    assert int(count.numpy()) == CorrectedRMSProp.COUNT_IF_MISSING
    count.assign(3)
    assert values(state) == {3}
    # What it saves then is of today's form.
    fill(state, 5)
    Checkpoints(tmp_path, state, 3, identity).save({})
    fill(state, 7)
    Checkpoints(tmp_path, state, 3, identity).restore_latest()
    assert values(state) == {5}


def test_without_a_count_nothing_is_corrected():
    """A mean square of an older version started at ones, and is taken as it is."""
    rule = CorrectedRMSProp()
    slots = {
        "mean_squares": [tf.constant([0.25, 4.0])],
        "count": [tf.constant(CorrectedRMSProp.COUNT_IF_MISSING, tf.int64)],
    }
    gradient = np.array([0.5, 2.0], np.float32)
    (update,), _ = rule.step([tf.constant(gradient)], slots, 0.1)
    np.testing.assert_allclose(update, 0.1, rtol=1e-6)


def test_a_checkpoint_that_lacks_anything_else_is_refused(tmp_path):
    agent = make_agent(meta_optimizer="rmsprop", eta_embedding_place="heads")
    fill(agent.learner.state, 3)
    as_saved_by_an_older_version(agent, tmp_path)
    for settings in ({"meta_optimizer": "adam"}, {"eta_embedding_place": "last_hidden"}):
        other = make_agent(
            **{"meta_optimizer": "rmsprop", "eta_embedding_place": "heads"} | settings
        )
        identity = identity_of(
            other.config.part(AgentSettings), other.description, other.learner.state
        )
        with pytest.raises(UserError, match="is of another run or version"):
            Checkpoints(tmp_path, other.learner.state, 3, identity).restore_latest()


WINDOW = {"inner_steps": 2, "meta_batch_size": 2}


def _identity(agent):
    return identity_of(agent.config.part(AgentSettings), agent.description, agent.learner.state)


@pytest.mark.parametrize(("there", "here"), [(2, 4), (4, 2)])
def test_a_window_of_other_batches_is_begun_anew(tmp_path, there, here):
    """Of another number of learners, or of a run that is continued with another batch size."""
    one, other = (make_agent(**WINDOW, batch_size=size) for size in (there, here))
    fill(one.learner.state, 3)
    Checkpoints(tmp_path, one.learner.state, 3, _identity(one)).save({"number": 3})
    state = other.learner.state
    fill(state, 7)
    restored = Checkpoints(tmp_path, state, 3, _identity(other)).restore_latest()
    assert restored is not None and restored.progress == {"number": 3}
    assert {float(v) for variable in state.shared_variables for v in variable.numpy().ravel()} == {
        3
    }
    assert state.window.made == 0 and not state.window.is_known.numpy()


@pytest.mark.parametrize("count", [2, 9, -1])
def test_a_window_without_its_meta_step_is_begun_anew(tmp_path, count):
    """As it was saved where another learner was lost during that step."""
    agent = make_agent(**WINDOW)
    window = agent.learner.state.window
    window.count.assign(count)
    Checkpoints(tmp_path, agent.learner.state, 3, _identity(agent)).save({})
    assert Checkpoints(tmp_path, agent.learner.state, 3, _identity(agent)).restore_latest()
    assert window.made == 0


def test_a_window_of_another_length_or_network_is_of_another_run(tmp_path):
    one = make_agent(**WINDOW)
    fill(one.learner.state, 3)
    Checkpoints(tmp_path, one.learner.state, 3, _identity(one)).save({})
    for settings in (WINDOW | {"inner_steps": 3}, WINDOW | {"mlp_sizes": "7"}):
        other = make_agent(**settings, batch_size=2)
        with pytest.raises(UserError, match="is of another run or version"):
            Checkpoints(tmp_path, other.learner.state, 3, _identity(other)).restore_latest()
