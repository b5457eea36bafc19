"""A customer from nothing: added, given a key and a plan by an operator's client, metered, and shown the door."""

import time

from tests.servers import WebProcess

CALL = {"task_type": "chat", "model": "demo-small", "prompt": "Hello"}
SEEN_WITHIN_S = 30  # the promise is five; nothing is judged by the clock of a busy machine


def test_a_customer_is_added_calls_and_is_revoked(web: WebProcess) -> None:
    with web.client(api_key=web.database.seed.operator_token) as operator:
        # curl -d says that it sends a form
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        from_curl = operator.post(
            "/v1/customers", content='{"name": "Acme", "external_id": "acme"}', headers=form
        )
        assert from_curl.status_code == 201, from_curl.text
        customer = operator.post(
            "/v1/customers", json={"name": "New", "external_id": "new", "plan": "professional"}
        )
        assert customer.status_code == 201, customer.text
        issued = operator.post("/v1/customers/new/keys", json={"label": "First"}).json()
        with web.client(api_key=issued["key"]) as caller:
            assert caller.post("/v1/execute", json=CALL).status_code == 200
            usage = caller.get("/v1/billing/usage").json()
            assert (usage["plan"], usage["current_usage"]["total_calls"]) == ("professional", 1)
            assert usage["period"]["start"] == customer.json()["period"]["start"]
            assert operator.delete(f"/v1/customers/new/keys/{issued['id']}").status_code == 204
            deadline = time.monotonic() + SEEN_WITHIN_S
            while caller.post("/v1/execute", json=CALL).status_code != 401:
                assert time.monotonic() < deadline, "a revoked key still opens the door"
                time.sleep(0.2)
