"""Who holds a run folder: the record in its lock file, and whether that process is still alive.

On the same machine the kernel knows: a process id together with the moment the process started is
unique. For another machine only the age of the record counts: a holder renews it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import secrets
import socket
from typing import NamedTuple

MAX_BYTES = 1024
# A holder renews its record this often, and counts as dead after this long without.
RENEWAL_SECONDS = 10.0
DEAD_AFTER_SECONDS = 120.0


class Machine(NamedTuple):
    """Where process ids mean the same: a host between two boots, and its PID namespace."""

    host: str
    boot: str
    namespace: str


class Record(NamedTuple):
    """What a holder writes.

    Attributes:
      pid: of the holder.
      machine: where that is its id.
      started: moment of its start, in the kernel's clock; empty if this system does not report it.
      token: of this holder and no other.
      inode: of the file that the record was written in: a copied record is no holder's. Empty in a
        record of an older version.
    """

    pid: int
    machine: Machine
    started: str
    token: str
    inode: str = ""

    @property
    def holder(self) -> str:
        """For messages."""
        return f"process {self.pid} on {self.machine.host}"

    def to_bytes(self) -> bytes:
        """One line of JSON."""
        fields = {
            "pid": self.pid,
            **self.machine._asdict(),
            "started": self.started,
            "token": self.token,
            "inode": self.inode,
        }
        return (json.dumps(fields) + "\n").encode()


def own_record() -> Record:
    """The record of this process."""
    pid = os.getpid()
    return Record(pid, this_machine(), start_of(pid) or "", secrets.token_hex(8))


def parse(content: bytes) -> Record | None:
    """The record of a lock file, or None if it holds none (or one of an earlier version)."""
    try:
        fields = json.loads(content[:MAX_BYTES])
        pid = fields["pid"]
        texts = [fields[name] for name in (*Machine._fields, "started", "token")]
        texts.append(fields.get("inode", ""))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if type(pid) is not int or not 0 < pid < 2**31 or not all(isinstance(t, str) for t in texts):
        return None
    host, boot, namespace, started, token, inode = texts
    return Record(pid, Machine(host, boot, namespace), started, token, inode)


def inode_of(descriptor: int) -> str:
    """The inode of an open file. (Its device is another one where it is mounted twice.)"""
    return str(os.fstat(descriptor).st_ino)


def is_alive(record: Record) -> bool | None:
    """Whether the holder lives; None if it is of another machine, where only time tells."""
    if record.machine != this_machine():
        return None
    started = start_of(record.pid)
    if started is None:
        return False
    return not record.started or not started or record.started == started


def this_machine() -> Machine:
    """The machine of this process."""
    return Machine(socket.gethostname(), _text("/proc/sys/kernel/random/boot_id"), _namespace())


def start_of(pid: int) -> str | None:
    """When a process started, in ticks since the boot; None if it does not exist or is a zombie.

    Empty if the process is alive but this system does not report it.
    """
    stat = _text(f"/proc/{pid}/stat")
    if stat:
        # The name in parentheses may contain anything. After it: state, parent, ..., start (22nd).
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else fields[19]
    if os.path.isdir("/proc/self"):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return ""


def _namespace() -> str:
    with contextlib.suppress(OSError):
        return str(os.stat("/proc/self/ns/pid").st_ino)
    return ""


def _text(path: str) -> str:
    try:
        return pathlib.Path(path).read_text("utf-8", "replace").strip()
    except OSError:
        return ""
