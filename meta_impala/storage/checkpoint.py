"""Checkpoints of a run: saved completely or not at all, verified before anything is restored.

A checkpoint is a folder `frames-N`:

    state.index, state.data-…    written by `tf.train.Checkpoint(learner=state)`, and so readable
    source.npz                   only with `--deterministic`: the state of the actors
    manifest.json                identity of the run, counters, size and SHA-256 of each file
    manifest.sha256              of the manifest

It is written aside, flushed to disk, and then renamed into place, so that a folder of this name is
complete. If one is damaged later its digests differ, and the one before is used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from meta_impala.config import AgentSettings
from meta_impala.environments import Description
from meta_impala.errors import RunFailed, UserError, one_line, printable, warn
from meta_impala.learner.state import LearnerState
from meta_impala.learner.window_state import Window
from meta_impala.networks.actor_critic import HEADS
from meta_impala.storage import arrays as arrays_lib
from meta_impala.storage.files import (
    flush,
    flush_folder,
    make_folder,
    remove_folder,
    unused_name,
    writing,
)
from meta_impala.storage.manifest import (
    FORMAT,
    REPLACED,
    SOURCE,
    Damaged,
    attempts_left,
    list_checkpoints,
    name_of,
    verify,
    version_of,
    write_manifest,
)
from meta_impala.system.user_path import without_pattern

_ASIDE, _REMOVED = ".saving", ".removing"
# Above the bytes of the variables: names, alignment, the graph of objects.
_MAX_OVERHEAD_BYTES = 2**24
# A window's data may be larger there: of fewer learners, or of larger batches.
_MOST_TIMES_LARGER = 64
# Parts of the identity that are younger than some checkpoints, and what those are.
_IDENTITY_IF_MISSING: dict[str, Any] = {
    "network's eta_embedding_place": HEADS,
    "network's num_embedded": 2,
    "network's auxiliary_heads": 0,
}

Arrays = Mapping[str, np.ndarray]


class Saved(NamedTuple):
    """A checkpoint that was restored.

    Attributes:
      path: its folder.
      progress: what the trainer had saved with it.
      source: the state of the actors, if that was saved.
    """

    path: pathlib.Path
    progress: dict[str, Any]
    source: dict[str, np.ndarray] | None


def identity_of(
    settings: AgentSettings, description: Description, state: LearnerState
) -> dict[str, Any]:
    """Identifies the run of a checkpoint: it is restored only where all of this is equal."""
    return {
        "environment": settings.environment,
        "protocol": settings.protocol,
        "number of actions": description.num_actions,
        "observation": f"{list(description.observation_shape)} {description.observation_dtype}",
        "learned of η": settings.meta_parameters,
        **{
            f"network's {name}": list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(state.network.settings).items()
        },
        "variables": _described(state),
    }


def _described(module: tf.Module) -> list[str]:
    return [f"{v.name} {v.dtype.name} {list(v.shape)}" for v in module.variables]


class Checkpoints:
    """The checkpoints of one folder, numbered by frames; for the one process that trains."""

    def __init__(
        self, folder: pathlib.Path, state: LearnerState, keep: int, identity: Mapping[str, Any]
    ) -> None:
        """Removes what an earlier process left half-written."""
        self._folder = folder
        self._state = state
        self._keep = keep
        self._identity = dict(identity)
        self._newest: pathlib.Path | None = None
        self._updates_of_newest = -1
        if folder.is_dir():
            for leftover in folder.iterdir():
                if leftover.name.startswith((_ASIDE, _REMOVED)):
                    remove_folder(leftover)
            _settle_replaced(folder)

    @property
    def newest(self) -> pathlib.Path | None:
        """The checkpoint restored or saved last."""
        return self._newest

    def restore_latest(self) -> Saved | None:
        """Restores everything from the newest checkpoint that is whole.

        Damaged ones that are newer are set aside as `frames-N.damaged`, with a warning.

        Returns:
          The checkpoint, or None if there is none (the state is then untouched).

        Raises:
          UserError: if the newest is of another run, or every one is damaged.
        """
        paths = list_checkpoints(self._folder)
        if not paths:
            _refuse_old_format(self._folder)
            return None
        saved, damaged = _restore_newest(paths, self._state, self._identity)
        if saved is None:
            raise _all_damaged(self._folder, damaged)
        _warn(saved.path, damaged)
        for path in damaged:
            os.rename(path, unused_name(path))
        self._newest = saved.path
        _, self._updates_of_newest = self._state.counts
        return saved

    def save(self, progress: Mapping[str, Any], source: Arrays | None = None) -> pathlib.Path:
        """Saves everything, as number `state.frames`, and removes the oldest.

        Args:
          progress: what JSON can hold; returned by `restore_latest`.
          source: the state of the actors.

        Raises:
          RunFailed: if it cannot be written, or a variable is not finite; the checkpoints before
            are untouched. If the message says that it is written, it is whole, and the newest.
        """
        frames, updates = self._state.counts
        path = self._folder / f"frames-{frames}"
        is_there = path == self._newest and path.is_dir()
        if is_there and updates == self._updates_of_newest:
            return path  # nothing was learned since
        aside = self._folder / f"{_ASIDE}-{os.getpid()}"
        try:
            _check_finite(self._state)
            make_folder(self._folder)
            remove_folder(aside)
            os.mkdir(aside)
            self._write(aside, progress, source)
            if is_there:
                # Between two updates on a batch (`sample_reuse`) the frames stand still.
                os.rename(path, self._folder / f"{REPLACED}{path.name}")
            elif path.exists():
                os.rename(path, unused_name(path))
            os.rename(aside, path)
        except (OSError, tf.errors.OpError, FloatingPointError) as error:
            shutil.rmtree(aside, ignore_errors=True)
            _settle_replaced(self._folder)
            # A file aside that is only not flushed counts as not written.
            reason = one_line(error.__cause__ or error)
            raise RunFailed(f"{path}: cannot be saved ({reason})") from error
        self._newest, self._updates_of_newest = path, updates  # complete, whatever happens now
        with writing(path):
            flush_folder(self._folder)
        _settle_replaced(self._folder)
        for old in list_checkpoints(self._folder)[self._keep :]:
            _remove(old)
        return path

    def _write(
        self, folder: pathlib.Path, progress: Mapping[str, Any], source: Arrays | None
    ) -> None:
        tf.train.Checkpoint(learner=self._state).write(str(folder / "state"))
        for path in folder.iterdir():
            flush(path)
        if source is not None:
            arrays_lib.write_arrays(folder / SOURCE, source)
        write_manifest(folder, self._identity, progress)


def restore_for_evaluation(
    folder: pathlib.Path, state: LearnerState, identity: Mapping[str, Any]
) -> pathlib.Path:
    """Restores the newest checkpoint that is whole, and touches nothing in the folder.

    Training may replace checkpoints meanwhile.

    Returns:
      The path of the checkpoint.

    Raises:
      UserError: if there is none, it is of another run, or every one is damaged.
    """
    for left in attempts_left():
        there = {path: version_of(path) for path in list_checkpoints(folder)}
        if not there:
            continue
        saved, damaged = _restore_newest(list(there), state, identity)
        # What has gone meanwhile, or is another, was not damaged but replaced by training.
        damaged = {
            path: why
            for path, why in damaged.items()
            if path.is_dir() and version_of(path) == there[path]
        }
        # Of one whose place another took, files of both may have been read.
        if saved is not None and version_of(saved.path) in (None, there[saved.path]):
            _warn(saved.path, damaged)
            return folder / name_of(saved.path)
        is_still = damaged.keys() == there.keys() and list_checkpoints(folder) == [*there]
        if damaged and (is_still or not left):
            raise _all_damaged(folder, damaged)
    _refuse_old_format(folder)
    raise UserError(
        f"{folder}: no checkpoint yet; train first, or wait until the first one is saved"
    )


def _restore_newest(
    paths: list[pathlib.Path], state: LearnerState, identity: Mapping[str, Any]
) -> tuple[Saved | None, dict[pathlib.Path, str]]:
    """Tries one after the other; returns the first that is whole, and why not those before."""
    damaged: dict[pathlib.Path, str] = {}
    for path in paths:
        try:
            return _restore(path, state, identity), damaged
        except Damaged as error:
            damaged[path] = str(error)
    return None, damaged


def _restore(path: pathlib.Path, state: LearnerState, identity: Mapping[str, Any]) -> Saved:
    """Restores one checkpoint, or raises Damaged or UserError and leaves the state as it was."""
    before = [variable.numpy() for variable in state.variables]
    manifest = verify(path, _most_bytes(state))
    found = manifest["identity"]
    module: tf.Module = state
    older, younger = state.as_older()
    rest = state.without_window()
    if found.get("variables") == _described(older):
        module = older
    elif _differ_in_data(found.get("variables"), identity["variables"], state.window):
        module = rest
    if module is not state:
        identity = {**identity, "variables": found["variables"]}
    _check_identity(path, found, identity)
    try:
        with without_pattern(path) as folder:
            status = tf.train.Checkpoint(learner=module).read(f"{folder}/state")
        if module is rest and state.window is not None:
            status.assert_existing_objects_matched().expect_partial()
            state.window.forget()
        else:
            status.assert_consumed()
        if module is older:
            for variable, value in younger:
                variable.assign(value)
        source = None
        if SOURCE in manifest["files"]:
            source = arrays_lib.read_arrays(path / SOURCE)
        _check_finite(state)
        _check_counters(path, state)
        if state.window is not None and not 0 <= state.window.made < state.window.length:
            state.window.clear()  # its meta step was not made: another learner was lost
    except (
        AssertionError, LookupError, ValueError, TypeError, OSError, ArithmeticError,
        tf.errors.OpError,
    ) as error:  # fmt: skip
        for variable, value in zip(state.variables, before, strict=True):
            variable.assign(value)
        # Or a page of "unrestored values" follows when the interpreter exits.
        tf.get_logger().setLevel("ERROR")
        raise Damaged(one_line(error)) from error
    return Saved(path, manifest["progress"], source)


def _most_bytes(state: LearnerState) -> int:
    """The largest files that a checkpoint of this state can have."""
    data = [] if state.window is None else state.window.data
    shared, of_window = (
        sum(v.dtype.size * int(np.prod(v.shape)) for v in variables)
        for variables in (state.finite_variables, data)
    )
    return 2 * (shared + _MOST_TIMES_LARGER * of_window) + _MAX_OVERHEAD_BYTES


def _differ_in_data(there: Any, here: list[str], window: Window | None) -> bool:
    """Whether the variables of a checkpoint differ in the shapes of a window's data alone.

    They are those of a batch: other ones of another number of learners, or with other settings.
    """
    if not isinstance(there, list) or window is None or there == here:
        return False
    names = {variable.name for variable in window.data}
    theirs, mine = (
        [line for line in map(str, described) if line.split(" ")[0] not in names]
        for described in (there, here)
    )
    return theirs == mine


def _check_identity(path: pathlib.Path, there: dict[str, Any], here: Mapping[str, Any]) -> None:
    """Raises UserError that spells out the first differences, if there are any."""
    there = _IDENTITY_IF_MISSING | there
    names = [name for name in here if name != "variables" and there.get(name) != here[name]]
    differences = [f"{name} {there.get(name)} (here {here[name]})" for name in names]
    if not differences and there.get("variables") != here["variables"]:
        # A list that differs in length differs in what one of the two has not.
        found = there.get("variables")
        mine = set(here["variables"])
        theirs = set(map(str, found if isinstance(found, list) else []))
        differences = [
            f"variables {'; '.join(sorted(theirs - mine)[:3]) or 'missing'} "
            f"(here {'; '.join(sorted(mine - theirs)[:3]) or 'missing'})"
        ]
    if differences:
        raise UserError(f"{path}: is of another run or version: {', '.join(differences)}")


def _check_finite(state: LearnerState) -> None:
    for variable in state.finite_variables:
        if variable.dtype.is_floating and not np.isfinite(variable.numpy()).all():
            raise FloatingPointError(f"{variable.name} is not finite")


def _check_counters(path: pathlib.Path, state: LearnerState) -> None:
    frames, updates = state.counts
    if name_of(path) != f"frames-{frames}" or min(frames, updates) < 0:
        raise ValueError(f"it is of {frames} frames and {updates} updates")


def _remove(path: pathlib.Path) -> None:
    """Removes a checkpoint; killed half-way, nothing is left that looks like one."""
    removed = path.with_name(f"{_REMOVED}-{path.name}")
    try:
        os.rename(path, removed)
    except OSError:
        return  # failing to free space must not end a run
    shutil.rmtree(removed, ignore_errors=True)


def _settle_replaced(folder: pathlib.Path) -> None:
    """Removes what a checkpoint of the same frames replaced, or brings it back if none did."""
    for replaced in list(folder.glob(f"{REPLACED}frames-*")):
        path = folder / name_of(replaced)
        if path.exists():
            remove_folder(replaced)
        else:
            with contextlib.suppress(OSError):  # it stays for the next start
                os.rename(replaced, path)


def _warn(taken: pathlib.Path, damaged: Mapping[pathlib.Path, str]) -> None:
    for path, why in damaged.items():
        warn(
            f"warning: checkpoint {path.name} is damaged ({printable(why)}); using "
            f"{taken.name}, the one before"
        )


def _all_damaged(folder: pathlib.Path, damaged: Mapping[pathlib.Path, str]) -> UserError:
    details = "; ".join(f"{path.name}: {why}" for path, why in damaged.items())
    return UserError(f"{folder}: every checkpoint is damaged ({details})")


def _refuse_old_format(folder: pathlib.Path) -> None:
    if any(folder.glob("frames-*.index")):
        raise UserError(
            f"{folder}: holds checkpoints of format 1, from an earlier version of meta_impala; "
            f"this version reads format {FORMAT}"
        )
