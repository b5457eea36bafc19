"""The folder of one process under SPOOL_DIR, and the lock in it that says whether that process lives."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid4

from metering.spool.frames import HEADER_BYTES, created_ms

SUFFIX = ".spool"
_LOCK, _DRAINER = "lock", "drainer"
_UNBORN = ".new-"  # a folder that nobody can lock yet


class Place:
    """A folder that this process has locked. The kernel gives the lock back when the process dies, however it does."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self._lock = lock
        self._number = max((int(file.stem) for file in self.segments()), default=0)

    @classmethod
    def make(cls, root: Path) -> "Place":
        """A new folder of our own. It has its name only once it is locked, so that nobody takes it for a dead process's."""
        root.mkdir(parents=True, exist_ok=True)
        name = uuid4().hex
        unborn = root / f"{_UNBORN}{name}"
        unborn.mkdir()
        lock = os.open(unborn / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        unborn.rename(root / name)
        sync(root)
        return cls(root / name, lock)

    @classmethod
    def of_the_dead(cls, root: Path) -> Iterator["Place"]:
        """The folders whose processes are dead, each locked for as long as it is in hand."""
        for path in sorted(root.iterdir()) if root.is_dir() else ():
            if path.name.startswith(".") or not path.is_dir():
                continue
            try:
                lock = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:  # somebody else has just ended it
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # alive, or in somebody else's hands
                os.close(lock)
                continue
            place = cls(path, lock)
            try:
                yield place
            finally:
                place.close()

    def segments(self) -> list[Path]:
        """The files, in the order in which they were written."""
        return sorted(self.path.glob(f"*{SUFFIX}"))

    def next_segment(self) -> Path:
        """The name of the next file."""
        self._number += 1
        return self.path / f"{self._number:08}{SUFFIX}"

    def drainer(self) -> UUID | None:
        """The writer under which these files were drained last; None where nobody has begun."""
        try:
            return UUID((self.path / _DRAINER).read_text())
        except (FileNotFoundError, ValueError):
            return None

    def note_drainer(self, writer: UUID) -> None:
        """Have it known, before anything is written under that name."""
        draft = self.path / f"{_DRAINER}.new"
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, writer.hex.encode())
            os.fsync(file)
        finally:
            os.close(file)
        draft.rename(self.path / _DRAINER)
        sync(self.path)

    def forget_drainer(self) -> None:
        """What was drained is removed; whoever drains next begins afresh."""
        with suppress(FileNotFoundError):
            (self.path / _DRAINER).unlink()

    def close(self) -> None:
        """Let go of the folder, and take it away where nothing is left in it."""
        if not any(self.path.glob(f"*{SUFFIX}*")):
            self.forget_drainer()
            with suppress(OSError):
                (self.path / _LOCK).unlink()
                self.path.rmdir()
        self.forget()

    def forget(self) -> None:
        """Close the descriptor. In a forked child the parent still has its own, and with it the lock."""
        os.close(self._lock)


def sync(folder: Path) -> None:
    """Make durable which files are in a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def oldest_ms(root: Path) -> int | None:
    """When the oldest file was made that waits under `root`, whosever it is; in milliseconds since 1970."""
    made = (_made(file) for file in root.glob(f"*/*{SUFFIX}"))
    return min((one for one in made if one is not None), default=None)


def _made(file: Path) -> int | None:
    try:
        with file.open("rb") as opened:
            return created_ms(opened.read(HEADER_BYTES))
    except FileNotFoundError:  # drained meanwhile
        return None
