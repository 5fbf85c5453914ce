"""The address of a Ray cluster, from a file that anybody may have written (fault)."""

import os

import pytest

from meta_impala.config import ActorSettings, Config
from meta_impala.distributed import cluster
from meta_impala.errors import UserError


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
