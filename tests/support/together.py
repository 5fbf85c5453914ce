"""Learners in one process that reduce together, each with its part of the columns."""

import dataclasses
import threading

import tensorflow as tf

from support.helpers import select_columns


class Together:
    """Learners that reduce together: one of them runs at a time, the others wait in `reduce`.

    (Sonnet's getter patches the modules of the whole process while it is open.)
    """

    def __init__(self, size):
        self._size = size
        self._turn = threading.Condition()
        self._parts, self.rounds = [], 0
        self._has_ended = False  # one of the learners, in this call of `run`

    def reduce(self, parts):
        self._parts.append(list(parts))
        mine = self.rounds
        if len(self._parts) == self._size:
            self._sums = [tf.add_n(same) for same in zip(*self._parts, strict=True)]
            self._parts, self.rounds = [], mine + 1
            self._turn.notify_all()
        else:
            self._turn.wait_for(lambda: self.rounds > mine or self._has_ended)
            assert self.rounds > mine, "another learner ended before this reduction"
        return list(self._sums)

    def run(self, work):
        """What each of the calls `work(0)`, `work(1)`, … returns; or the first of their errors.

        No clock decides that a learner is lost: on a busy machine an update takes a minute.
        """
        results, errors = [None] * self._size, []
        self._parts, self._has_ended = [], False

        def in_turn(index):
            with self._turn:
                try:
                    results[index] = work(index)
                except Exception as error:  # noqa: BLE001 - raised again below
                    errors.append(error)
                finally:
                    self._has_ended = True
                    self._turn.notify_all()

        threads = [
            threading.Thread(target=in_turn, args=[i], daemon=True) for i in range(self._size)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return results


def parts_of(case, size):
    """The case of each learner: B/N columns of τ and B'/N of τ'."""

    def part(batch, index):
        count = batch.rewards.shape[1] // size
        return select_columns(batch, tf.range(index * count, (index + 1) * count))

    return [
        dataclasses.replace(case, batch=part(case.batch, i), meta_batch=part(case.meta_batch, i))
        for i in range(size)
    ]
