"""Costs of each part on this machine."""
