"""The process of a Ray actor, without Ray: what it refuses before it plays."""

import pytest
from support.helpers import FEATURES
from support.run_helpers import make_config

from meta_impala.config import RemoteActorSettings, resolve_network
from meta_impala.config import hyper_parameters as table
from meta_impala.distributed.remote_actor import RemoteActor
from meta_impala.environments import registry
from meta_impala.errors import UserError

OWN = [
    table.HyperParameter(name, name, "of a program", lambda _: 0.1, lambda _: (0.0, 1.0))
    for name in ("first_cost", "second_cost")
]


def _actor(**settings) -> RemoteActor:
    config = resolve_network(make_config(actors="ray", **settings), (3, 2))
    return RemoteActor(0, 7, config.part(RemoteActorSettings), FEATURES)


def _register(monkeypatch, rows) -> None:
    for row in rows:
        monkeypatch.setitem(table.TABLE, row.name, row)


@pytest.mark.parametrize(
    ("names", "known"), [("gamma,first_cost", "gamma"), ("second_cost", "nothing")]
)
def test_own_meta_parameters_that_its_process_does_not_know_are_refused(monkeypatch, names, known):
    _register(monkeypatch, OWN)
    actor = _actor(meta_parameters=names)
    actor.place()
    monkeypatch.undo()  # the table of another process
    message = f"--meta_parameters={names}: means {known} in the process of the actor; with --actors"
    with pytest.raises(UserError, match=message):
        actor.place()


@pytest.mark.parametrize("is_same_order", [True, False])
def test_those_that_the_module_of_its_environment_registers(monkeypatch, is_same_order):
    resolve = registry.resolve

    def import_and_resolve(name):
        _register(monkeypatch, OWN if is_same_order else OWN[::-1])
        return resolve(name)

    with monkeypatch.context() as program:
        _register(program, OWN)
        actor = _actor(meta_parameters="gamma,first_cost,second_cost")
    monkeypatch.setattr(registry, "resolve", import_and_resolve)
    if is_same_order:
        actor.place()
        return
    with pytest.raises(UserError, match="means gamma,second_cost,first_cost in the process"):
        actor.place()


def test_the_programs_own_names_are_accepted_without_an_import(monkeypatch):
    monkeypatch.setattr(registry, "resolve", lambda name: pytest.fail(f"{name} is imported"))
    for settings in (
        {},
        {"meta_parameters": "none"},
        {"meta_parameters": "gamma,entropy_cost", "reference_tracking": "gamma"},
        {"meta_parameter_scope": "state"},
    ):
        _actor(**settings).place()
