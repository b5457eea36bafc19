"""What machines ask."""

from collections.abc import Mapping

import pytest

from project.ops import Check, Operations
from tests.project.asgi import ask

pytestmark = pytest.mark.anyio

HEALTHY = {"database": Check("healthy"), "redis": Check("off")}


def operations(checks: Mapping[str, Check] = HEALTHY, *, token: str = "") -> Operations:
    async def look() -> Mapping[str, Check]:
        return checks

    return Operations(look, metrics_token=token)


async def test_a_process_that_lives_says_so_whatever_is_wrong() -> None:
    answer = await ask(operations({"database": Check("down")}), "/healthz")
    assert (answer.status, answer.json()) == (200, {"status": "ok"})


async def test_ready_names_every_check() -> None:
    answer = await ask(operations(), "/readyz")
    assert (answer.status, answer.json()["status"]) == (200, "ready")
    assert set(answer.json()["checks"]) == {"database", "redis"}


async def test_one_check_that_fails_takes_the_process_out_of_service() -> None:
    answer = await ask(operations(HEALTHY | {"writer": Check("down", "stopped")}), "/readyz")
    assert (answer.status, answer.json()["status"]) == (503, "not_ready")
    assert answer.json()["checks"]["writer"] == {"state": "down", "detail": "stopped"}


@pytest.mark.parametrize(
    ("state", "status", "code"),
    [("healthy", "healthy", 200), ("degraded", "degraded", 200), ("down", "down", 503)],
)
async def test_health_is_the_worst_of_its_services(state: str, status: str, code: int) -> None:
    answer = await ask(operations(HEALTHY | {"rate_card": Check(state)}), "/health")  # type: ignore[arg-type]
    assert (answer.status, answer.json()["status"]) == (code, status)
    assert answer.json()["services"] == {"database": "healthy", "redis": "off", "rate_card": state}
    assert answer.json()["timestamp"].endswith("+00:00")


@pytest.mark.parametrize("path", ["/metrics", "/metrics/usage"])
async def test_metrics_are_in_the_text_format(path: str) -> None:
    answer = await ask(operations(), path)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert b"# TYPE" in answer.body


async def test_metrics_may_need_a_token() -> None:
    app = operations(token="secret")
    assert (await ask(app, "/metrics")).status == 401
    assert (await ask(app, "/metrics", headers={"Authorization": "Bearer wrong"})).status == 401
    assert (await ask(app, "/metrics", headers={"Authorization": "Bearer secret"})).status == 200


async def test_nothing_is_changed_here() -> None:
    assert (await ask(operations(), "/readyz", method="POST")).status == 405
