"""The Ray cluster of the command line (faults): its address, from a file that anybody may have
written, and more CPUs for a process than a node has; there the cluster is a stand-in."""

import contextlib
import os
import sys
import types

import pytest

from meta_impala import population, run_suite
from meta_impala.config import ActorSettings, Config, resolve
from meta_impala.distributed import cluster
from meta_impala.errors import UserError


@pytest.fixture
def with_nodes(monkeypatch):
    """Makes a cluster of nodes with so many CPUs, and one that is dead."""

    def with_nodes(*cpus):
        nodes = [{"Alive": True, "Resources": {"CPU": n} if n else {}} for n in cpus]
        nodes.append({"Alive": False, "Resources": {"CPU": 1000.0}})
        stand_in = types.SimpleNamespace(nodes=lambda: nodes, __spec__=object())
        monkeypatch.setitem(sys.modules, "ray", stand_in)

    monkeypatch.setattr(cluster, "connected", lambda _: contextlib.nullcontext())
    return with_nodes


@pytest.mark.parametrize(
    ("nodes", "cpus", "said"),
    [
        ([2.0, 16.0, 4.0], 16.5, "16.5: must be at most 16, .* nodes: 16, 4, 2"),
        ([1.0], 2.0, "2: must be at most 1, .* nodes: 1"),
        ([0.0], 0.5, "0.5: must be at most 0, .* nodes: 0"),
        ([], 1.0, "1: must be at most 0, .* nodes: none"),
        ([8.0] * 5000, 9.0, r"9: must be at most 8, .* nodes: 8, 8, .*… .14998 characters"),
    ],
)
def test_what_no_node_has_is_refused(with_nodes, nodes, cpus, said):
    with_nodes(*nodes)
    with pytest.raises(UserError, match=rf"^--cpus={said}\)") as refusal:
        cluster.refuse_more_cpus("cpus", cpus)
    assert len(str(refusal.value)) < 300


def test_what_the_largest_node_has_is_taken(with_nodes):
    with_nodes(2.0, 16.0, 0.0)
    for cpus in (0.0, 0.5, 2.0, 16.0):
        cluster.refuse_more_cpus("cpus", cpus)


def test_a_suite_and_a_population_are_refused(with_nodes, monkeypatch, tmp_path):
    with_nodes(1.0)
    given = types.SimpleNamespace(ray_address="local", cpus_per_run=2.0)
    monkeypatch.setattr(run_suite, "FLAGS", given)
    with pytest.raises(UserError, match="^--cpus_per_run=2: must be at most 1, "):
        run_suite._on_a_cluster().__enter__()
    monkeypatch.setattr(population, "FLAGS", {"ray_address": types.SimpleNamespace(value="local")})
    members = types.SimpleNamespace(cpus=64.0)
    with pytest.raises(UserError, match="^--population_cpus=64: must be at most 1, "):
        population._train(None, resolve(Config(environment="Catch")), members, [], records=True)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no cluster runs on this machine"),
        (b"", "no cluster runs on this machine"),
        (b"caf\xe9:6379", "no cluster runs on this machine"),
        (b"h:1" * 1000, "no cluster runs on this machine"),
        ("a pipe", "no cluster runs on this machine"),
        ("a folder", "no cluster runs on this machine"),
        (b"127.0.0.1:1", "nothing answers at 127.0.0.1:1"),
        (b"127.0.0.1:99999999", "nothing answers at 127.0.0.1:99999999"),
        (b"127.0.0.1", "nothing answers at 127.0.0.1"),
        (b"a\0b:1", "nothing answers at a"),
    ],
    ids=str,
)
def test_the_address_of_a_cluster_that_is_none_is_refused(tmp_path, monkeypatch, content, said):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    path = tmp_path / "ray" / "ray_current_cluster"
    path.parent.mkdir()
    if content == "a pipe":
        os.mkfifo(path)
    elif content == "a folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    settings = Config(actors="ray", ray_address="auto").part(ActorSettings)
    with (
        pytest.raises(UserError, match=f"^--ray_address=auto: {said}"),
        cluster.connected(settings),
    ):
        pass
