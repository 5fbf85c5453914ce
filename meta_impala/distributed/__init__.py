"""Actors as processes on a Ray cluster."""
