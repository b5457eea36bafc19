"""A fair queue in front of SQLite's single write lock.

SQLite's own busy handler polls, and the one who polls at the wrong moments starves: of two busy processes one was seen to
wait for seconds while the other wrote thousands of rows. The kernel queues waiters of `flock` instead. Every writer, ours
and Django's, holds this lock from before BEGIN IMMEDIATE until after COMMIT.
"""

import fcntl
import os
import weakref


class Turnstile:
    """An exclusive `flock` on a file beside the database. One per connection; not re-entrant; released when its process dies."""

    def __init__(self, database: str) -> None:
        self._path = f"{database}.turnstile"
        self._file: int | None = None
        self._give_back: weakref.finalize[..., Turnstile] | None = None
        self._pid = os.getpid()
        self.held = False

    def acquire(self) -> None:
        """Wait until it is our turn."""
        self._forget_inherited()
        if self._file is None:
            self._file = self._open()
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self.held = True

    def release(self) -> None:
        """Let the next one through; nothing happens where it is not held."""
        self._forget_inherited()
        if self.held and self._file is not None:
            self.held = False
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Release, and give the descriptor back."""
        self.release()
        self._close()

    def _open(self) -> int:
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        # Django forgets the connections of threads that have ended without closing them.
        self._give_back = weakref.finalize(self, os.close, file)
        # At exit the kernel closes it: earlier, a thread that is still writing would lose its turn.
        self._give_back.atexit = False
        return file

    def _close(self) -> None:
        if self._give_back is not None:
            self._give_back()
        self._file = self._give_back = None

    def _forget_inherited(self) -> None:
        """After a fork: the descriptor shares its lock with the parent, so it is closed and never unlocked."""
        if self._pid != os.getpid():
            self._close()
            self._pid, self.held = os.getpid(), False
