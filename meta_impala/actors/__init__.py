"""From environments to the trajectory queue: actors, unrolls, and the sources of blocks.

* `actor.py`: steps environments and emits unrolls (`trajectory.py`); truncation is handled there.
* `source.py`: where the trainer takes blocks from. `threaded.py`: actor threads that feed
  `trajectory_queue.py`; `turn_taking.py`: actors in turn, for `--deterministic`.
* `making.py`, `startup.py`, `late_actors.py`: how environments and actors are made and started.
* `restarts.py`: new environments for those that raised.
"""
