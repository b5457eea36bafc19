"""Notes on a usage that was read already: which rule fired after all, and what makes it doubtful."""

import msgspec

from pricing.usage import Usage


def with_rule(usage: Usage, rule: str) -> Usage:
    """`usage` with one more rule that fired, which explains what it says."""
    consistency = f"repaired:{rule}" if usage.consistency == "ok" else usage.consistency
    return msgspec.structs.replace(usage, rules=(*usage.rules, rule), consistency=consistency)


def with_doubt(usage: Usage, rule: str) -> Usage:
    """`usage` with one more rule that fired, which leaves open whether it says everything."""
    return msgspec.structs.replace(usage, rules=(*usage.rules, rule), consistency="inconsistent")


def with_metadata(usage: Usage, **facts: str) -> Usage:
    """`usage` with facts about the answer beside it."""
    return msgspec.structs.replace(usage, metadata={**(usage.metadata or {}), **facts})
