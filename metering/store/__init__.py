"""How rows reach a database. Owns: the SQL of the recorder, one file a dialect, and the meaning of its errors.
Does not own: when to write, what to write, what to do about an error (`metering.recorder`).

A `Store` opens *lanes*. A lane is one connection that writes batches, each as one transaction without a round trip while
locks are held. Every batch advances the row of its writer by one, so that a batch whose COMMIT has an unknown outcome can
be sent again under the same number: it is applied once, or refused with `SequenceRefused`.
"""

from metering.store.base import (
    BadRow,
    Lane,
    Locked,
    SequenceRefused,
    Store,
    StoreError,
    Unavailable,
    WriterState,
)

__all__ = ["BadRow", "Lane", "Locked", "SequenceRefused", "Store", "StoreError", "Unavailable", "WriterState"]
