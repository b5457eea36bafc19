"""The spool: where calls are kept on the local disk while the database is away, and how they come into the database after.

Owns: the files under SPOOL_DIR, what is in them, when they are synced, and their end: each call in the books exactly once.
Does not own: whether the database is away, and whose calls go out then (`metering.recorder`, `metering.meter`).

Each process writes to a folder of its own, whose lock says whether it lives. There is a record when a call goes out without
a hold in the database, and one when it is settled; that one holds everything, so that no record needs another. A file is
closed before it is drained, and removed only once all that it says is known to be in the database.
"""

from metering.spool.abandoned import drain_abandoned
from metering.spool.drainer import Drainer
from metering.spool.spool import Spool, SpoolFull

__all__ = ["Drainer", "Spool", "SpoolFull", "drain_abandoned"]
