"""Imports and calls go only down the folders, in the order of BUILD_NOTES.md; pages (structure).

Followed call by call: a batch that enters the update, a config that loads an agent, a frame from
the emulator to the batch. No lower folder calls back into a higher one.
"""

import ast
import contextlib
import pathlib
import re
import sys
import threading

import pytest
import tensorflow as tf
from support.helpers import make_agent, random_batch
from support.run_helpers import make_config

import meta_impala
from meta_impala.actors.startup import ActorStart
from meta_impala.config import AgentSettings, BatcherSettings, resolve_network
from meta_impala.environments import registry
from meta_impala.learner.group import ALONE
from meta_impala.learner.make_learner import make_learner
from meta_impala.storage.checkpoint import Checkpoints, identity_of
from meta_impala.storage.trained_agent import load_agent
from meta_impala.system.signals import StopRequest
from meta_impala.training.batcher import Batcher
from meta_impala.training.block_sources import SourceMaker, restarts_of

PACKAGE = pathlib.Path(meta_impala.__file__).parent
ROOT = PACKAGE.parent
# From the top down. Those of one line may only be used by those above; `algorithm` runs networks.
ROOMS = (
    ("experiments", "benchmarks"),
    ("study", "illustrations"),
    ("analysis",),
    ("diagnosis", "published"),
    ("training",),
    ("evaluation", "distributed"),
    ("storage",),
    ("learner",),
    ("actors",),
    ("agent",),
    ("algorithm",),
    ("networks",),
    ("environments",),
    ("config",),
    ("system",),
    ("errors",),
)
LEVEL = {name: level for level, names in enumerate(reversed(ROOMS)) for name in names}


def room_of(path: pathlib.Path) -> str:
    first, *rest = path.relative_to(PACKAGE).parts
    return first if rest else path.stem


def imported(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "meta_impala":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("meta_impala."):
            yield node.module.split(".")[1]


def test_imports_go_down():
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert rooms | {"errors"} == set(LEVEL)
    wrong = []
    for path in PACKAGE.rglob("*.py"):
        mine = room_of(path)
        for other in imported(ast.parse(path.read_text("utf-8"))) if mine in LEVEL else ():
            known = other == "__version__" or other in LEVEL
            if not known or (other != mine and LEVEL.get(other, -1) >= LEVEL[mine]):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {other}")
    assert not wrong


def modules_in_table(text: str) -> list[str]:
    """What stands in the first column of a README's table of files, or nothing."""
    table = re.search(r"^\| (?:file|module)\b.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    rows = table[1].splitlines() if table else []
    return [name for row in rows for name in re.findall(r"`([\w.]+/?)`", row.split("|")[1])]


@pytest.mark.parametrize("readme", sorted(PACKAGE.glob("*/README.md")), ids=lambda p: p.parent.name)
def test_the_table_of_a_readme_has_every_module_of_its_folder(readme):
    modules = {path.name for path in readme.parent.glob("*.py")} - {"__init__.py"}
    folders = {f"{path.parent.name}/" for path in readme.parent.glob("*/__init__.py")}
    assert sorted(modules_in_table(readme.read_text("utf-8"))) == sorted(modules | folders)


def pages():
    """The pages written by hand, without those that `compare` and the study write."""
    of_folders = [ROOT / name for name in ("meta_impala", "testdata", "tests", "tools")]
    found = [*ROOT.glob("*.md"), *(page for top in of_folders for page in top.rglob("*.md"))]
    return [page for page in found if page.name not in ("report.md", "study.md")]


def test_lines_of_pages_have_at_most_120_characters():
    """Commands in a fence, of which the README promises one line, may be longer."""
    long = []
    for page in pages():
        text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        long += [f"{page.name}: {line[:60]}" for line in text.splitlines() if len(line) > 120]
    assert not long


@contextlib.contextmanager
def calls_between_rooms():
    """Notes the calls from one folder's code into another's: (caller, callee), in all threads."""
    seen: set[tuple[str, str]] = set()
    rooms: dict[str, str | None] = {}

    def room(frame):
        name = frame.f_code.co_filename
        if name not in rooms:
            path = pathlib.Path(name)
            rooms[name] = room_of(path) if path.is_relative_to(PACKAGE) else None
        return rooms[name]

    def profile(frame, event, _):
        if event != "call" or room(frame) is None:
            return
        caller = frame.f_back
        while caller is not None and room(caller) is None:
            caller = caller.f_back
        if caller is not None and room(caller) != room(frame):
            seen.add((room(caller), room(frame)))

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield seen
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def assert_all_go_down(calls, *expected):
    assert set(expected) <= calls
    assert [pair for pair in calls if LEVEL[pair[1]] >= LEVEL[pair[0]]] == []


@pytest.fixture
def eager():
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        pytest.param({"trace_decay": 0.5}, marks=pytest.mark.slow),
        pytest.param(
            {"micro_batches": 2, "inner_steps": 2, "meta_objective": "bootstrapped"},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_calls_of_an_update_go_down(eager, settings):
    agent = make_agent(meta_batch_size=2, **settings)
    batches = [random_batch(agent, seed) for seed in range(3)]
    with calls_between_rooms() as calls:
        for updates in range(agent.config.inner_steps):
            agent.learner.update(batches[updates], batches[updates + 1], updates, 0)
    assert_all_go_down(calls, ("learner", "algorithm"), ("algorithm", "networks"))


@pytest.fixture
def run():
    config = make_config(batch_size=4, envs_per_actor=2, num_actors=1, meta_batch_size=2)
    description = registry.describe(config.environment, config.protocol)
    config = resolve_network(config, description.observation_shape)
    return config, description, make_learner(config, description)


def test_calls_of_loading_an_agent_go_down(run, tmp_path):
    config, description, learner = run
    identity = identity_of(config.part(AgentSettings), description, learner.state)
    Checkpoints(tmp_path, learner.state, 3, identity).save({})
    with calls_between_rooms() as calls:
        load_agent(tmp_path, config, description)
    assert_all_go_down(calls, ("storage", "learner"), ("learner", "agent"), ("agent", "networks"))


def test_calls_from_the_emulator_to_the_batch_go_down(run):
    config, description, learner = run
    stop = StopRequest()
    maker = SourceMaker(config, description, restarts_of(config, 0), stop, ALONE, None)
    maker.build(learner.state.network)
    source = maker.make(0, ActorStart(stop))
    batcher = Batcher(config.part(BatcherSettings), config.block_size, source.next_block)
    try:
        with calls_between_rooms() as calls:
            source.start(learner.snapshot())
            batcher.next_batches()
    finally:
        source.close()
    assert_all_go_down(calls, ("training", "actors"), ("actors", "environments"))
