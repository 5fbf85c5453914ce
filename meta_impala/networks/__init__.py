"""Sonnet modules: torsos, the recurrent core, the embedding of η, the actor-critic."""

from meta_impala.networks.actor_critic import ActorCritic

__all__ = ["ActorCritic"]
