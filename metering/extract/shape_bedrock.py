"""What Bedrock's formats share: Converse's counters, model names with their geography, and the units of guardrails."""

from collections.abc import Iterator, Mapping
from typing import Any

from metering.extract.counts import Counted, Counters, put, text_or_none
from metering.extract.shape_anthropic import put_writes
from pricing.usage import UnknownSide

# What stands before a model's vendor in the name of an inference profile: where the model may run.
_GEOGRAPHIES = frozenset(
    {"us", "us-gov", "eu", "apac", "ap", "au", "jp", "in", "kr", "ca", "sa", "mx", "uk", "il", "me", "af", "global"}
)  # fmt: skip
_HIDING = (
    "application-inference-profile/",
    "provisioned-model/",
    "prompt-router/",
    "custom-model-deployment/",
)
_PROVISIONED = "provisioned-model/"
# Guardrail units that are billed; words are checked for nothing, and so are free units.
_GUARDRAIL_UNITS = (
    "topicPolicyUnits",
    "contentPolicyUnits",
    "contentPolicyImageUnits",
    "sensitiveInformationPolicyUnits",
    "contextualGroundingPolicyUnits",
    "automatedReasoningPolicyUnits",
)


def read_converse(usage: Mapping[str, Any]) -> Counted:
    """Disjoint buckets of Converse's usage object: the cache beside the input, and inside the total."""
    counters = Counters()
    read = counters.read
    tokens_in = read(usage, "inputTokens", "inputTokenCount")
    tokens_out = read(usage, "outputTokens", "outputTokenCount")
    cached = read(usage, "cacheReadInputTokens", "cacheReadInputTokenCount") or 0
    written = read(usage, "cacheWriteInputTokens", "cacheWriteInputTokenCount") or 0
    total = read(usage, "totalTokens")
    cache = cached + written
    if total is not None and tokens_in is not None and tokens_out is not None:
        beside = total - tokens_in - tokens_out
        if beside == 0 and 0 < cache <= tokens_in:
            counters.repair("cache_inclusive")
            tokens_in -= cache
        elif beside == 0 and cache:
            counters.repair("total_without_cache")
        elif beside != cache:
            counters.flaw("total_unexplained")

    buckets: dict[str, int] = {}
    unknown: tuple[UnknownSide, ...] = ()
    if tokens_in is None:
        unknown = ("input",)
    elif tokens_in or not cache:
        buckets["in_uncached"] = tokens_in
    put(buckets, "in_cache_read", cached)
    if written or usage.get("cacheDetails"):
        put_writes(buckets, counters, written, _by_ttl(counters, usage))
    if tokens_out is None:
        unknown = (*unknown, "output")
    else:
        buckets["out_visible"] = tokens_out
    return counters.counted(buckets, unknown)


def _by_ttl(counters: Counters, usage: Mapping[str, Any]) -> dict[str, int]:
    """Cache writes by time to live."""
    found: dict[str, int] = {}
    details = usage.get("cacheDetails")
    for item in details if isinstance(details, list) else ():
        if isinstance(item, dict):
            ttl = text_or_none(item.get("ttl")) or "unknown"
            found[ttl] = found.get(ttl, 0) + (counters.read(item, "inputTokens") or 0)
    return found


def guardrail_units(trace: Any) -> int:
    """The billed units of all guardrails that a trace tells of, for what went in and for what came out."""
    guardrail = trace.get("guardrail") if isinstance(trace, dict) else None
    if not isinstance(guardrail, dict):
        return 0
    counters = Counters()
    return sum(
        counters.read(used, name) or 0
        for side in ("inputAssessment", "outputAssessments")
        for used in _usages(guardrail.get(side))
        for name in _GUARDRAIL_UNITS
    )


def _usages(assessments: Any) -> Iterator[Mapping[str, Any]]:
    """The usage of each assessment: by guardrail one of the input, or several of the output."""
    for found in assessments.values() if isinstance(assessments, dict) else ():
        for assessment in found if isinstance(found, list) else [found]:
            metrics = assessment.get("invocationMetrics") if isinstance(assessment, dict) else None
            if isinstance(metrics, dict) and isinstance(metrics.get("usage"), dict):
                yield metrics["usage"]


def invoked_model(trace: Any) -> str | None:
    """The model that a prompt router chose."""
    router = trace.get("promptRouter") if isinstance(trace, dict) else None
    return text_or_none(router.get("invokedModelId") if isinstance(router, dict) else None)


def model_and_region(name: str | None) -> tuple[str | None, str | None]:
    """The model that is billed, without the geography before it, and that geography, which changes the price.

    `us.anthropic.claude-…` is (`anthropic.claude-…`, `us`), as a name of its own or at the end of an ARN. An ARN that hides
    its model (an application's inference profile, provisioned throughput, a router) is its own name: rates have to say
    what it is.
    """
    if not name:
        return None, None
    if name.startswith("arn:"):
        if any(hiding in name for hiding in _HIDING):
            return name, None
        name = name.rpartition("/")[2] or name
    geography, _, model = name.partition(".")
    return (model, geography) if geography in _GEOGRAPHIES and "." in model else (name, None)


def tier_of(model: str | None, said: Any) -> Any:
    """The service tier; what runs on provisioned throughput is paid by the hour."""
    if model and model.startswith("arn:") and _PROVISIONED in model:
        return "provisioned"
    return said.get("type") if isinstance(said, dict) else said
