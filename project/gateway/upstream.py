"""The way to a provider's API: one HTTP client for the process, and what its failures mean to the caller."""

from collections.abc import AsyncIterator
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from project.gateway.exchange import Refused, invalid_request
from project.gateway.headers import Headers
from project.gateway.settings import GOOGLE, GatewaySettings, Upstream

_CONNECTIONS_KEPT = 100
# httpx unfolds these by itself; anything else passes as it came.
_DECODABLE = ("", "identity", "gzip", "deflate")


class UpstreamBroken(ConnectionError):
    """The upstream broke off in the middle of an answer that the caller has begun to read.

    It leaves the gateway as an exception: the server then closes the caller's connection short of the end, so that a
    broken answer never looks like a whole one.
    """


class UpstreamClient:
    """Sends requests upstream. Its connections are made at first use and closed by `aclose`."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._client: httpx.AsyncClient | None = None

    async def open(
        self, upstream: Upstream, path: str, headers: Headers, body: bytes, query: bytes = b""
    ) -> httpx.Response:
        """Post and wait for the status line and the headers; the caller of this closes the response.

        Raises Refused: 502 where the upstream cannot be reached or will not have our key, 504 where it says nothing in
        time, 400 where the request cannot be sent. Other answers, errors among them, are returned.
        """
        client = self._connected()
        try:
            request = client.build_request(
                "POST", upstream.url_of(path, query), headers=headers, content=body
            )
            response = await client.send(request, stream=True)
        except (httpx.LocalProtocolError, httpx.InvalidURL):
            raise invalid_request("The headers or the query of the request cannot be sent on.") from None
        except httpx.TransportError as error:
            raise refusal_of(error, upstream) from error
        refusal = _unusable(response.status_code, upstream)
        if refusal is not None:
            await response.aclose()
            raise refusal
        return response

    async def aclose(self) -> None:
        """Close all connections; a later `open` makes new ones."""
        if self._client is not None:
            client, self._client = self._client, None
            await client.aclose()

    def _connected(self) -> httpx.AsyncClient:
        if self._client is None:
            read_s, connect_s = self._settings.read_timeout_s, self._settings.connect_timeout_s
            self._client = httpx.AsyncClient(
                timeout=httpx.Timeout(read_s, connect=connect_s, pool=None),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=_CONNECTIONS_KEPT),
                # All callers share this client: a cookie set upon one must never travel with another.
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            )
        return self._client


async def body_of(response: httpx.Response, *, decoded: bool) -> AsyncIterator[bytes]:
    """The body in the chunks it arrives in, as on the wire or decoded. Raises UpstreamBroken when it ends too early."""
    try:
        async for chunk in response.aiter_bytes() if decoded else response.aiter_raw():
            if chunk:
                yield chunk
    except (httpx.TransportError, httpx.DecodingError) as error:
        raise UpstreamBroken(f"{response.request.url.host} broke off: {error!r}") from error


def can_decode(response: httpx.Response) -> bool:
    """Whether the body's compression, if it has any, can be taken off here."""
    return response.headers.get("content-encoding", "").strip().lower() in _DECODABLE


def is_event_stream(response: httpx.Response) -> bool:
    return bool(response.headers.get("content-type", "").lower().startswith("text/event-stream"))


def refusal_of(error: Exception, upstream: Upstream) -> Refused:
    """What to answer when the upstream failed before the answer began."""
    name = upstream.provider
    if isinstance(error, httpx.TimeoutException) and not isinstance(error, httpx.ConnectTimeout):
        # Not worth a blind retry: the provider may have done the work, and bill it.
        return Refused(504, "upstream_timeout", f"The upstream for {name} did not answer in time.")
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return Refused(
            502, "upstream_unreachable", f"The upstream for {name} cannot be reached.", retryable=True
        )
    return Refused(
        502,
        "upstream_broken",
        f"The upstream for {name} broke off before its answer was whole.",
        retryable=True,
    )


def refuses_our_key(upstream: Upstream, status: int, body: bytes) -> None:
    """Raises Refused (502) for the answer of Google that calls our key no good: it is a 400, like those for the caller."""
    if upstream.provider == GOOGLE and status == 400 and b'"API_KEY_INVALID"' in body:
        raise _refused_key(upstream)


def _refused_key(upstream: Upstream) -> Refused:
    detail = f"The upstream for {upstream.provider} does not accept the gateway's own key."
    return Refused(502, "upstream_refused_key", detail)


def _unusable(status: int, upstream: Upstream) -> Refused | None:
    """Answers that speak to us and not to the caller: our key is not good, or we should go elsewhere."""
    name = upstream.provider
    if status == 401:
        return _refused_key(upstream)
    if 300 <= status < 400:
        return Refused(502, "upstream_redirected", f"The upstream for {name} answered with a redirect.")
    return None
