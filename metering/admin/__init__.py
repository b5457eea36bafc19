"""The operator's view of what was used and of what was corrected afterwards. Read-only: these rows are written by the recorder
and by the acts that correct them.

Every page reads a bounded slice, however large the tables are: events of a time window over the index on `created_at`,
counts that stop at ten thousand, search by identifiers only.
"""

from metering.admin.corrections import ReratingAdmin, UnpricedEventAdmin, UsageCorrectionAdmin
from metering.admin.usage import (
    DailyUsageAdmin,
    HoldAdmin,
    QuarantinedRowAdmin,
    UsageEventAdmin,
    WriterAdmin,
)

__all__ = [
    "DailyUsageAdmin",
    "HoldAdmin",
    "QuarantinedRowAdmin",
    "ReratingAdmin",
    "UnpricedEventAdmin",
    "UsageCorrectionAdmin",
    "UsageEventAdmin",
    "WriterAdmin",
]
