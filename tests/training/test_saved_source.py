"""The actors' state in a checkpoint of somebody else (fault): what was saved, or a refusal in one
line."""

import hashlib
import json
import shutil

import numpy as np
import pytest
from support.run_helpers import StopAfter, files_of, make_config, make_trainer

from meta_impala.errors import UserError
from meta_impala.storage import arrays as arrays_lib
from meta_impala.storage.checkpoint import Saved
from meta_impala.storage.manifest import list_checkpoints
from meta_impala.training.saved_source import saved_source

# Of a control, whose unrolls carry three numbers of η.
CONFIG = make_config(
    deterministic=True, total_frames=10**6, core="lstm", eta_schedule="random",
    meta_parameters="gamma,rho_clip", eta_random_ranges="rho_clip:0.5,1.5",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that was stopped while blocks waited, and the trainer that would continue it."""
    path = tmp_path_factory.mktemp("run")
    assert make_trainer(path, CONFIG, StopAfter(12)).run() == "stopped"
    return path, make_trainer(path, CONFIG)


@pytest.fixture
def arrays(run):
    found = dict(run[1]._saved_source)
    assert {"turn", "actor 0 actions", "block 0 rewards"} <= set(found)
    return found


def check(run, arrays):
    trainer = run[1]
    saved = Saved(run[0] / "frames-1", {}, arrays)
    return saved_source(saved, trainer._description, trainer.learner)


def huge(array):
    changed = array.copy()
    changed[...] = np.iinfo(array.dtype).max
    return changed


# How an array may differ from what was saved, and of which arrays that can be told.
WRONG = {
    "missing": None,
    "no axis": lambda a: np.zeros((), a.dtype) if a.ndim else a[None],
    "an axis more": lambda a: a[..., None],
    "empty": lambda a: a[..., :0] if a.ndim else np.zeros(0, a.dtype),
    "transposed": lambda a: a.T.reshape(a.shape[::-1]) if a.ndim > 1 else a[None],
    "float64": lambda a: a.astype(np.float32 if a.dtype == np.float64 else np.float64),
    "text": lambda a: a.astype("U8"),
    "bools": lambda a: a.astype(np.uint8 if a.dtype == np.bool_ else bool),
    "huge": huge,
    "negative": lambda a: (a.astype(np.int64) * 0 - 1).astype(a.dtype),
}


# What has no range that this check could know, or no such value.
_ANY_NUMBER = {("huge", "turn")}


def changed_arrays(arrays, kind):
    """Every array with this fault, of those for which it is one: name -> the changed array."""
    for name, array in arrays.items():
        if kind in ("huge", "negative"):
            can = array.size and array.dtype.kind in ("iu" if kind == "huge" else "i")
            if not can or name.endswith("observations") or (kind, name) in _ANY_NUMBER:
                continue
            yield name, WRONG[kind](array)
        elif WRONG[kind] is None:
            yield name, None
        else:
            changed = WRONG[kind](array)
            if (changed.dtype, changed.shape) != (array.dtype, array.shape):
                yield name, changed


@pytest.mark.parametrize("kind", WRONG)
def test_every_fault_in_every_array_is_refused(run, arrays, kind):
    tried = 0
    for name, changed in changed_arrays(arrays, kind):
        given = {key: value for key, value in arrays.items() if key != name}
        if changed is not None:
            given[name] = changed
        with pytest.raises(UserError, match=r"its source\.npz is damaged") as caught:
            check(run, given)
            pytest.fail(f"{name} {kind} was accepted")
        assert str(caught.value).isprintable()
        tried += 1
    assert tried >= 4


def test_saved_arrays_are_accepted(run, arrays):
    assert check(run, arrays) is not None
    nan = {n: np.full_like(a, np.nan) for n, a in arrays.items() if n.endswith(" rewards")}
    assert check(run, arrays | nan) is not None  # an environment may have paid that


@pytest.mark.parametrize(
    "changes",
    [
        {"actor 1 \x1b[2J": np.zeros(1)},
        {"block 7 rewards": np.zeros(1)},
        {"block 00 rewards": np.zeros(1)},
        {"actor 9 seed": np.zeros(1, np.int64)},
        {"block 0 episodes": np.array([[1.0, np.nan]])},
        {"block 0 episodes": np.array([[1.0, 1e300]])},
        {"block 0 episodes": np.array([[1.0, -1.0]])},
    ],
)
def test_wrong_names_and_values_are_refused(run, arrays, changes):
    with pytest.raises(UserError) as caught:
        check(run, arrays | changes)
    assert str(caught.value).isprintable()
    with pytest.raises(UserError):
        check(run, {name: a for name, a in arrays.items() if not name.startswith("actor ")})


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95cposix\nsystem", b"PK\x03\x04" + bytes(99)])
def test_a_file_that_is_not_npz_is_damage(run, content, tmp_path):
    path = _signed_copy(run[0], tmp_path, lambda file: file.write_bytes(content))
    before = files_of(path)
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        make_trainer(path, CONFIG)
    assert files_of(path) == before


def test_a_run_with_a_hostile_source_is_refused_and_untouched(run, arrays, tmp_path):
    """As a whole: digests are right, since they do not say who signed."""
    changed = arrays | {"actor 0 actions": np.full((3, 2), 60_000, np.uint16)}
    path = _signed_copy(run[0], tmp_path, lambda file: arrays_lib.write_arrays(file, changed))
    before = files_of(path)
    with pytest.raises(UserError, match="actor 0 actions has values outside 0 to 2"):
        make_trainer(path, CONFIG)
    assert files_of(path) == before


def _signed_copy(run, tmp_path, write):
    path = tmp_path / "copy"
    shutil.copytree(run, path)
    checkpoint = list_checkpoints(path / "checkpoints")[0]
    write(checkpoint / "source.npz")
    content = (checkpoint / "source.npz").read_bytes()
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    digest = hashlib.sha256(content).hexdigest()
    manifest["files"]["source.npz"] = {"bytes": len(content), "sha256": digest}
    text = json.dumps(manifest).encode()
    (checkpoint / "manifest.json").write_bytes(text)
    (checkpoint / "manifest.sha256").write_text(hashlib.sha256(text).hexdigest() + "\n")
    return path
