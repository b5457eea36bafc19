"""A provider's API for tests: a real HTTP server that speaks OpenAI's, Anthropic's and Google's formats, with faults on demand.

    with upstream_server() as upstream:
        GatewaySettings(openai=Upstream("openai", upstream.url, "sk-upstream"))
        …
        assert [call.caller for call in upstream.calls] == ["call-1"]

Owns: the double, its faults (`tests.upstream.faults`) and the record of what it was asked.
Does not own: prices, or anything that the product does with an answer.
"""

from tests.upstream.double import Call, Double
from tests.upstream.faults import Fault
from tests.upstream.serving import RunningUpstream, serving, upstream_server

__all__ = ["Call", "Double", "Fault", "RunningUpstream", "serving", "upstream_server"]
