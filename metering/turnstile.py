"""A fair queue in front of SQLite's single write lock.

SQLite's own busy handler polls, and the one who polls at the wrong moments starves: of two busy processes one was seen to
wait for seconds while the other wrote thousands of rows. The kernel queues waiters of `flock` instead. Every writer, ours
and Django's, holds this lock from before BEGIN IMMEDIATE until after COMMIT.
"""

import fcntl
import os


class Turnstile:
    """An exclusive `flock` on a file beside the database. One per connection; not re-entrant; released when its process dies."""

    def __init__(self, database: str) -> None:
        self._path = f"{database}.turnstile"
        self._file: int | None = None
        self._pid = 0
        self.held = False

    def acquire(self) -> None:
        """Wait until it is our turn."""
        if self._file is None or self._pid != os.getpid():
            # A descriptor inherited by fork shares its lock with the parent: open our own.
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            self._pid = os.getpid()
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self.held = True

    def release(self) -> None:
        """Let the next one through; nothing happens where it is not held."""
        if self.held and self._file is not None:
            self.held = False
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Release, and give the descriptor back."""
        self.release()
        if self._file is not None and self._pid == os.getpid():
            os.close(self._file)
        self._file = None
