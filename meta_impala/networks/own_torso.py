"""Torsos by name: those of the package, and classes of the user's own as `module:Class`.

Whether a module that a file names may be imported is decided by `storage/trust.py` before this. A
user's torso is tried before it is used: what would silently make the meta-gradient wrong is an
error here.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

import sonnet as snt
import tensorflow as tf

from meta_impala.environments import faults
from meta_impala.errors import UserError
from meta_impala.networks.torsos import (
    TORSOS,
    UNIT,
    ImageScaling,
    Torso,
    make_torso_of_package,
)


def make_torso(
    name: str,
    dtype: tf.DType,
    mlp_sizes: Sequence[int],
    compute_dtype: tf.DType | None,
    image_scaling: ImageScaling = UNIT,
) -> Torso:
    """A torso without variables yet.

    Args:
      name: one of `TORSOS`, or `module:Class`, which is imported.
      dtype: of weights and features.
      mlp_sizes: widths of the "mlp" torso.
      compute_dtype: of the layers between; `dtype` if None.
      image_scaling: of bytes; a user's own torso scales them itself.

    Raises:
      UserError: if there is no such class, it is not a `Torso`, or its constructor fails.
    """
    if name in TORSOS:
        return make_torso_of_package(name, dtype, mlp_sizes, compute_dtype, image_scaling)
    kind = _class_of(name)
    try:
        return kind(dtype, compute_dtype)
    except BaseException as error:  # noqa: BLE001 - a person's code may raise anything
        raise _refusal(name, "its constructor raised", error) from error


def _class_of(name: str) -> type[Torso]:
    module, _, attribute = name.rpartition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except BaseException as error:  # noqa: BLE001 - a person's code may raise anything
        reason = faults.import_failure(error, module)
        raise UserError(f"--network={name}: the module cannot be imported: {reason}") from error
    if not (isinstance(found, type) and issubclass(found, Torso)):
        reason = "there is no such class" if found is None else "it is not a Torso"
        raise UserError(
            f"--network={name}: {reason}; must be a subclass of meta_impala.networks.torsos.Torso"
        )
    return found


def _refusal(name: str, what: str, error: BaseException) -> UserError:
    """Of an error in a person's code, `SystemExit` too; a real Ctrl-C is raised again."""
    if faults.is_ctrl_c(error):
        raise error
    return UserError(f"--network={name}: {what} {faults.describe(error)}")


def check_own_torso(name: str, torso: Torso, observations: tf.Tensor, dtype: tf.DType) -> None:
    """Tries a user's torso on a batch, which also makes its variables.

    Args:
      name: of the torso; nothing is done for those of the package.
      torso: as made.
      observations: `[N, ...]` of the environment.
      dtype: that it was made for.

    Raises:
      UserError: if it fails, returns anything but `[N, F]` and `[N, H]` of the dtype, or has a
        variable that cannot be replaced by a tensor.
    """
    if name in TORSOS:
        return
    used = set()

    def noted(variable: tf.Variable) -> tf.Variable:
        used.add(variable.ref())
        return variable

    try:
        torso(observations)  # makes the variables
        with snt.custom_variable_getter(noted):
            features = torso.body(observations)
            hidden = torso.last_hidden(features)
            width = torso.last_layer.output_size
    except BaseException as error:  # noqa: BLE001 - a person's code may raise anything
        shape = list(observations.shape[1:])
        raise _refusal(name, f"fails on observations {shape}:", error) from error
    rows = observations.shape[0]
    for what, tensor, sizes in (
        ("body", features, [rows, None]),
        ("last_hidden", hidden, [rows, width]),
    ):
        _check_tensor(f"--network={name}: its {what}", tensor, sizes, dtype)
    left = [variable.name for variable in torso.trainable_variables if variable.ref() not in used]
    if left:
        raise UserError(
            f"--network={name}: the variable {left[0]} is not read as an attribute of a Sonnet "
            "module, so no gradient of the meta objective could go through it"
        )


def _check_tensor(what: str, tensor: tf.Tensor, sizes: list[int | None], dtype: tf.DType) -> None:
    """Raises UserError unless it is a tensor of these sizes (None: any) and dtype."""
    is_tensor = isinstance(tensor, tf.Tensor)
    if is_tensor and tensor.dtype == dtype and tensor.shape.is_compatible_with(sizes):
        return
    found = f"{tensor.dtype.name}{list(tensor.shape)}" if is_tensor else type(tensor).__name__
    shape = ", ".join("N" if i == 0 else str(size or "F") for i, size in enumerate(sizes))
    raise UserError(f"{what} returned {found}; must be {dtype.name}[{shape}], N being {sizes[0]}")
