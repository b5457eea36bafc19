"""The whole web process, from outside: from the request to the usage page."""

import re
import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx
import pytest

from tests.servers import ROOT, WebProcess, manage

pytestmark = pytest.mark.engine

CALL = {"task_type": "chat", "model": "demo-small", "prompt": "one two three"}


def django(web: WebProcess, code: str) -> str:
    """Runs `code` in a Django shell on the web's database; what it printed."""
    return manage(web.database.url, str(ROOT / "manage.py"), "shell", "-v0", "-c", code).strip()


def test_what_the_headers_say_is_what_the_usage_adds_up_to(start_web: Callable[..., WebProcess]) -> None:
    web = start_web()
    with web.client() as client:
        answers = [client.post("/v1/execute", json=CALL) for _ in range(3)]
        usage = client.get("/v1/billing/usage").json()["current_usage"]
    assert [answer.status_code for answer in answers] == [200] * 3
    charges = [Decimal(answer.headers["x-usage-charge"]) for answer in answers]
    tokens = [
        int(answer.headers[f"x-usage-tokens-{side}"]) for answer in answers for side in ("input", "output")
    ]
    assert (usage["total_calls"], usage["total_tokens"]) == (3, sum(tokens))
    assert Decimal(usage["total_cost"]) == sum(charges)


def test_a_person_logs_in_and_sees_the_usage(start_web: Callable[..., WebProcess]) -> None:
    web = start_web()
    django(
        web,
        "from django.contrib.auth.models import User; from billing.models import Customer, Membership; "
        "user = User.objects.create_user('someone', password='correct horse'); "
        "Membership.objects.create(user=user, customer=Customer.objects.get(external_id='payer'))",
    )
    with web.client() as caller:
        charge = caller.post("/v1/execute", json=CALL).headers["x-usage-charge"]
    with httpx.Client(base_url=web.url, follow_redirects=True) as browser:
        login = browser.get("/")
        assert login.url.path == "/portal/login"
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', login.text)
        assert token is not None
        form = {"csrfmiddlewaretoken": token[1], "username": "someone", "password": "correct horse"}
        page = browser.post("/portal/login", data=form, headers={"Referer": str(login.url)})
    assert page.url.path == "/portal/usage"
    assert f'title="{charge}"' in page.text


def test_a_revoked_key_is_refused_within_five_seconds(start_web: Callable[..., WebProcess]) -> None:
    web = start_web()
    with web.client() as client:
        assert client.post("/v1/execute", json=CALL).status_code == 200
        django(web, "from billing.models import ApiKey; [key.revoke() for key in ApiKey.objects.all()]")
        time.sleep(5)
        refused = client.post("/v1/execute", json=CALL)
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_api_key")


def test_machines_are_answered(web: WebProcess) -> None:
    ready = httpx.get(f"{web.url}/readyz").json()
    assert {name: check["state"] for name, check in ready["checks"].items() if name != "redis"} == {
        "database": "healthy", "migrations": "healthy", "writer": "healthy", "spool": "healthy", "rate_card": "healthy",
    }  # fmt: skip
    assert httpx.get(f"{web.url}/healthz").status_code == 200
    assert httpx.get(f"{web.url}/health").json()["status"] == "healthy"
    metrics = httpx.get(f"{web.url}/metrics").text
    assert "tollgate_usage_events_total" in metrics
    assert "\ntollgate_unpriced_events " in metrics and "\ntollgate_unpriced_events NaN" not in metrics


def test_a_name_that_a_caller_made_up_has_no_series(web: WebProcess) -> None:
    with web.client() as client:
        assert client.post("/v1/execute", json=CALL).status_code == 200
        assert client.post("/v1/execute", json=CALL | {"model": "demo-made-up"}).status_code == 404
    tokens = [
        line
        for line in httpx.get(f"{web.url}/metrics").text.splitlines()
        if line.startswith("tollgate_tokens_total{")
    ]
    assert any('model="demo-small"' in line for line in tokens)
    assert any('model="other"' in line for line in tokens)
    assert not any("made-up" in line for line in tokens)


def test_a_database_that_is_not_migrated_is_not_ready(start_web: Callable[..., WebProcess]) -> None:
    web = start_web()
    web.stop()
    django(
        web,
        "from django.db import connection; "
        "connection.cursor().execute(\"delete from django_migrations where app = 'tollgate_billing'\")",
    )
    unready = start_web(web.database, wait=False)
    found: Any = None
    while found is None:
        try:
            found = httpx.get(f"{unready.url}/readyz")
        except httpx.ConnectError:
            time.sleep(0.1)
    assert (found.status_code, found.json()["checks"]["migrations"]["state"]) == (503, "down")


def test_the_admins_login_has_its_styles(web: WebProcess) -> None:
    page = httpx.get(f"{web.url}/admin/login/")
    assert page.status_code == 200
    links = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
    assert any("tollgate/admin.css" in link for link in links)
    assert [link for link in links if httpx.get(web.url + link).status_code != 200] == []


@pytest.mark.parametrize("path", ["/nothing", "/v1/nothing", "/static/nothing.css", "/admin/nothing/"])
def test_what_is_not_there_is_not_an_error_of_ours(web: WebProcess, path: str) -> None:
    assert httpx.get(web.url + path).status_code in (302, 404)
