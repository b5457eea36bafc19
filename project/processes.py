"""Child processes that live and die together.

Each child has a process group of its own, so that Ctrl-C in a terminal reaches this process alone and the children end in
order; and each is told by the kernel (Linux) to end when this process is killed.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from types import FrameType

import msgspec

STOP_S_MAX = 10.0
_PR_SET_PDEATHSIG = 1


class Program(msgspec.Struct, frozen=True):
    """What to run, and what to call it."""

    name: str
    command: Sequence[str]


class Together:
    """Runs programs until one ends or this process is told to stop; then stops all."""

    def __init__(self, programs: Sequence[Program], environment: Mapping[str, str]) -> None:
        self._programs, self._environment = programs, environment
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._told_to_stop = False

    def start(self) -> None:
        """Start every program, and take over SIGINT and SIGTERM."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)
        for program in self._programs:
            self._children[program.name] = subprocess.Popen(
                program.command,
                env=dict(self._environment),
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,  # noqa: PLW1509  (no thread runs yet)
            )

    def failed(self) -> tuple[str, int] | None:
        """The first program that has ended by itself, and its exit code."""
        for name, child in self._children.items():
            code = child.poll()
            if code is not None:
                return name, code
        return None

    @property
    def pids(self) -> list[int]:
        """The process ids of the programs, in their order."""
        return [child.pid for child in self._children.values()]

    @property
    def told_to_stop(self) -> bool:
        return self._told_to_stop

    def wait(self, look_every_s: float = 0.2) -> tuple[str, int] | None:
        """Wait until told to stop (None), or until a program ends by itself: which, and its exit code."""
        while not self._told_to_stop:
            ended = self.failed()
            if ended is not None:
                return ended
            time.sleep(look_every_s)
        return None

    def stop(self) -> None:
        """Ask all to end, and kill what has not after `STOP_S_MAX`. Calls in flight are settled by the web process."""
        running = [child for child in self._children.values() if child.poll() is None]
        for child in running:
            child.terminate()
        deadline = time.monotonic() + STOP_S_MAX
        for child in running:
            try:
                child.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._told_to_stop = True


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
