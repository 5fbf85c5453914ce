"""The Ray cluster of a run: whether it can be used, and the connection with it.

Ray's processes listen on the loopback device alone if the cluster is started here, or its address
is a loopback address. TensorFlow is not imported here.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
import re
import signal
import socket
from collections.abc import Iterator
from typing import Any

from meta_impala.config import ActorSettings
from meta_impala.config.text import shown
from meta_impala.distributed.cluster_watch import ClusterLost
from meta_impala.errors import RunFailed, UserError, one_line
from meta_impala.storage.files import read_bounded
from meta_impala.system.tensorflow_import import without_noise

# Ray's output while it tries to connect; its final error is enough.
_START_UP_NOISE = re.compile(rb"(gcs_client|rpc_client|logging)\.(cc|h):[0-9]+:|FutureWarning")

_LOCAL = ("", "local")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_CONNECT_SECONDS = 5.0
_MAX_ADDRESS_BYTES = 1000


def check(settings: ActorSettings) -> None:
    """Checks that Ray is installed if the settings need it.

    Raises:
      UserError: if it is not installed.
    """
    if settings.actors == "ray" and importlib.util.find_spec("ray") is None:
        raise UserError(
            "--actors=ray: needs Ray, which is missing: pip install 'meta_impala[distributed]'"
        )


def _current_cluster() -> str:
    """The address for `auto`, from the file that `ray start` writes, or an empty text."""
    if os.environ.get("RAY_ADDRESS"):
        return os.environ["RAY_ADDRESS"]
    folder = pathlib.Path(os.environ.get("RAY_TMPDIR") or "/tmp") / "ray"
    try:
        content = read_bounded(folder / "ray_current_cluster", _MAX_ADDRESS_BYTES)
        return content.decode("utf-8").strip()
    except (OSError, ValueError):  # anybody may have written it
        return ""


def _refuse(settings: ActorSettings, reason: str) -> UserError:
    return UserError(
        f"--ray_address={settings.ray_address}: {reason}; must be the HOST:PORT of the head of a "
        "running cluster that this machine belongs to (ray start --address=HOST:PORT), auto, or "
        "empty"
    )


def _address_of(settings: ActorSettings) -> str:
    """HOST:PORT of the head, checked to accept connections: Ray would wait for minutes."""
    address = settings.ray_address
    if address == "auto":
        address = _current_cluster()
        if not address:
            raise _refuse(settings, "no cluster runs on this machine")
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS):
            return address
    except (OSError, ValueError, OverflowError) as error:  # also of a port that cannot be one
        raise _refuse(settings, f"nothing answers at {address} ({one_line(error)})") from None


@contextlib.contextmanager
def connected(settings: ActorSettings) -> Iterator[None]:
    """Connects to the cluster of the config, or starts one; disconnects, or ends it, at the end.

    For the main thread. Does nothing without `--actors=ray`. A SIGTERM that comes while Ray
    connects is passed on to its handler afterwards, and there may be no connection then.

    Raises:
      UserError: if there is no such cluster.
      RunFailed: if Ray could not be started here.
    """
    if settings.actors != "ray":
        yield
        return
    address = None if settings.ray_address in _LOCAL else _address_of(settings)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is None or address.rpartition(":")[0] in _LOOPBACK:
        # Otherwise Ray replaces a loopback address by one that other machines can reach. (The
        # variable is named after the systems where that is the default.)
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    _initialize(settings, address)
    lost = False
    try:
        yield
    except ClusterLost:
        lost = True
        raise
    finally:
        if not lost:  # disconnecting would wait for an answer
            import ray

            ray.shutdown()


def refuse_more_cpus(flag: str, cpus: float) -> None:
    """Refuses a process that no node of the connected cluster can have: Ray would wait for ever.

    Args:
      flag: that says how many CPUs Ray reserves for it.
      cpus: its value.

    Raises:
      UserError: naming what each node has.
    """
    import ray

    nodes = [node["Resources"].get("CPU", 0.0) for node in ray.nodes() if node["Alive"]]
    most = max(nodes, default=0.0)
    if cpus > most:
        each = shown(", ".join(f"{count:g}" for count in sorted(nodes, reverse=True)))
        raise UserError(
            f"--{flag}={cpus:g}: must be at most {most:g}, the CPUs of the largest node of the Ray "
            f"cluster (CPUs of its nodes: {each or 'none'})"
        )


def _initialize(settings: ActorSettings, address: str | None) -> None:
    import ray

    # With auto or local Ray looks for its authentication token by itself.
    known = settings.ray_address == "auto"
    arguments: dict[str, Any] = {"address": "auto" if known else address, "log_to_driver": False}
    if address is None:
        arguments |= {"address": "local", "num_gpus": 0, "include_dashboard": False}
        arguments |= {"num_cpus": settings.num_actors * settings.env_threads}
    # Ray makes SIGTERM exit at once.
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with without_noise(_START_UP_NOISE):
            ray.init(**arguments, logging_level="ERROR")
    except SystemExit:
        signal.signal(signal.SIGTERM, handler)
        os.kill(os.getpid(), signal.SIGTERM)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        if address is None:
            raise RunFailed(f"Ray cannot be started on this machine ({one_line(error)})") from error
        reason = f"{one_line(error)}; a cluster with a token needs RAY_AUTH_MODE=token"
        raise _refuse(settings, reason) from error
    finally:
        signal.signal(signal.SIGTERM, handler)
