"""The reference API that Tollgate meters: the paths of OpenAI, Anthropic and Google, passed on to an upstream or answered by demo models.

Owns: the routes below `/v1/` that cost tokens, what may pass between caller and upstream, the shapes of the demo models' answers.
Does not own: who the caller is, what a call costs, or whether it is recorded. It works the same with no metering around it.
"""

from project.gateway.app import Gateway, build_gateway
from project.gateway.settings import GatewaySettings, InvalidSetting, Upstream

__all__ = ["Gateway", "GatewaySettings", "InvalidSetting", "Upstream", "build_gateway"]
