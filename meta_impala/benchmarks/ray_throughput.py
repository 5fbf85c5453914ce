"""Costs of actors on Ray on this machine: the measurements that `tools/scaling_plan.py` fits.

A cluster of one or several nodes is started here, on the loopback device; actors play, and a
receiver takes their unrolls as fast as they arrive and publishes weights, without learning. Costs
are CPU time, which other work on the machine disturbs less than wall time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import ray
from ray.cluster_utils import Cluster

from meta_impala.actors.restarts import Restarts
from meta_impala.benchmarks.scaling import Window
from meta_impala.config import ActorSettings, Config, RemoteActorSettings
from meta_impala.distributed import cluster as ray_cluster
from meta_impala.distributed.ray_source import RaySource
from meta_impala.environments import Description
from meta_impala.learner.make_learner import make_learner
from meta_impala.system.signals import StopRequest

_OBJECT_STORE_BYTES = 200 * 2**20
_ACTOR = "ray::RemoteActor"


@contextlib.contextmanager
def _cluster(nodes: int, actors: int) -> Iterator[Cluster]:
    """Nodes on the loopback device, the actors spread evenly; none on the head."""
    settings: dict[str, Any] = {
        "node_ip_address": "127.0.0.1",
        "object_store_memory": _OBJECT_STORE_BYTES,
        "num_gpus": 0,
    }
    cluster = Cluster(shutdown_at_exit=False)
    try:
        cluster.add_node(num_cpus=0, include_dashboard=False, **settings)
        for _ in range(nodes):
            cluster.add_node(num_cpus=actors // nodes, **settings)
        yield cluster
    finally:
        cluster.shutdown()


def _cpu_seconds() -> tuple[float, float, float]:
    """CPU time so far of this process, of its actors, and of all other Ray processes it started."""
    actors = others = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            if " ".join(process.cmdline()).startswith(_ACTOR):
                actors += times.user + times.system
            else:
                others += times.user + times.system
    return time.process_time(), actors, others


def measure(
    config: Config,
    description: Description,
    *,
    nodes: int,
    publish_every: tuple[int, ...],
    seconds: float,
) -> list[Window]:
    """Runs `config.num_actors` actors on a number of nodes.

    Args:
      config: resolved, network included.
      description: of the environment.
      nodes: the actors are spread over.
      publish_every: unrolls from one version of the weights to the next; one window for each.
      seconds: of a window.
    """
    snapshot = make_learner(config, description).snapshot()
    windows = []
    with _cluster(nodes, config.num_actors) as cluster:
        config = dataclasses.replace(config, actors="ray", ray_address=cluster.address)
        with ray_cluster.connected(config.part(ActorSettings)):
            restarts = Restarts(_never, config.seed, 0, 0)
            source = RaySource(
                config.part(RemoteActorSettings), config.block_size, description,
                StopRequest(), restarts,
            )  # fmt: skip
            source.start(snapshot)
            # The actors take longer than this to start.
            time.sleep(2.0)
            idle, started = time.process_time(), time.perf_counter()
            time.sleep(2.0)
            idle = (time.process_time() - idle) / (time.perf_counter() - started)
            playing: set[int] = set()
            while len(playing) < config.num_actors:
                playing.add(source.next_block().actor)
            version = 0
            for every in publish_every:
                before = (source.unrolls, source.unroll_bytes, source.broadcasts)
                cpu, started, taken = _cpu_seconds(), time.perf_counter(), 0
                while time.perf_counter() < started + seconds:
                    source.next_block()
                    taken += 1
                    if taken % every == 0:
                        version += 1
                        source.publish(snapshot._replace(version=version))
                elapsed = time.perf_counter() - started
                receiver, actors, others = (
                    now - then for now, then in zip(_cpu_seconds(), cpu, strict=True)
                )
                unrolls = source.unrolls - before[0]
                windows.append(
                    Window(
                        actors=config.num_actors,
                        nodes=nodes,
                        seconds=elapsed,
                        unrolls=unrolls,
                        agent_steps=unrolls * config.unroll_length * config.envs_per_actor,
                        versions=source.broadcasts - before[2],
                        actor_cpu=actors,
                        receiver_cpu=receiver,
                        receiver_idle=idle,
                        ray_cpu=others,
                        unroll_bytes=source.unroll_bytes - before[1],
                        weights_bytes=source.broadcast_bytes // max(1, source.broadcasts),
                    )
                )
            source.close()
    return windows


def _never() -> Any:
    raise AssertionError("remote actors make their own environments")


class _Silent:
    """Never answers."""

    def wait(self) -> None:
        time.sleep(1e6)


def waiting_costs(counts: tuple[int, ...]) -> dict[int, float]:
    """CPU-ms of one poll of this many pending unrolls (`ray.wait`)."""
    costs = {}
    with _cluster(1, 1) as cluster:
        config = Config(actors="ray", ray_address=cluster.address)
        with ray_cluster.connected(config.part(ActorSettings)):
            actor: Callable[..., Any] = ray.remote(_Silent).options(num_cpus=0).remote()
            references: list[Any] = []
            for count in counts:
                references += [actor.wait.remote() for _ in range(count - len(references))]  # type: ignore[attr-defined]
                ray.wait(references, num_returns=1, timeout=0)
                started, looks = time.process_time(), 0
                while looks < 5 or time.process_time() < started + 0.3:
                    ray.wait(references, num_returns=1, timeout=0)
                    looks += 1
                costs[count] = 1e3 * (time.process_time() - started) / looks
            ray.kill(actor)
    return costs
