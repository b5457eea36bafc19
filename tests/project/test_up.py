"""`manage.py up`: one command, as a new user runs it."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path

import httpx
import pytest

from billing.demo import PREPAID_CREDITS
from tests.local_servers import free_port
from tests.servers import ROOT, Databases, environment

pytestmark = pytest.mark.engine


class Up:
    """A running `manage.py up`, and what it printed."""

    def __init__(self, database_url: str, var: Path, port: int) -> None:
        self.port = port
        self.process = subprocess.Popen(
            [sys.executable, "manage.py", "up"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=environment(database_url, {"PORT": str(port), "VAR_DIR": str(var)}), start_new_session=True,
        )  # fmt: skip
        self.lines: list[str] = []

    def read_until(self, text: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip())
            if text in line:
                return "\n".join(self.lines)
        raise AssertionError("\n".join(self.lines))

    def named(self, name: str) -> str:
        found = re.search(rf"^{name}: (\S+)$", "\n".join(self.lines), re.MULTILINE)
        assert found is not None, self.lines
        return found[1]

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        rest, _ = self.process.communicate(timeout=60)
        self.lines += rest.splitlines()
        return self.process.returncode


@pytest.fixture
def up(databases: Databases, tmp_path: Path) -> Iterator[Callable[[], Up]]:
    """Starts `manage.py up`, each time on the same empty database and folder."""
    url, started = databases._empty(), []

    def start() -> Up:
        started.append(Up(url, tmp_path / "var", free_port()))
        started[-1].read_until("Ctrl-C stops everything.")
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()
        if one.process.stdout is not None:
            one.process.stdout.close()


def test_the_printed_curl_line_works_as_printed_and_a_second_start_keeps_everything(
    up: Callable[[], Up],
) -> None:
    first = up()
    line = next(line for line in first.lines if line.strip().startswith("curl -i"))
    answer = subprocess.run(shlex.split(line), capture_output=True, text=True, check=True).stdout
    assert answer.startswith("HTTP/1.1 200 OK")
    charge = re.search(r"^x-usage-charge: (\S+)$", answer, re.MULTILINE)
    assert charge is not None
    key, token = first.named("API key"), first.named("Operator token")
    assert first.stop() == 0

    second = up()
    assert (second.named("API key"), second.named("Operator token")) == (key, token)
    base = f"http://127.0.0.1:{second.port}"
    usage = httpx.get(f"{base}/v1/billing/usage", headers={"x-api-key": key}).json()["current_usage"]
    assert (usage["total_calls"], usage["total_cost"]) == (1, charge[1])
    asked_by_operator = httpx.get(
        f"{base}/v1/billing/usage?customer=acme", headers={"Authorization": f"Bearer {token}"}
    )
    assert asked_by_operator.json()["current_usage"]["total_calls"] == 0
    prepaid = {"x-api-key": second.named("Prepaid API key")}
    call = {"task_type": "chat", "model": "demo-small", "prompt": "Hello"}
    paid = httpx.post(f"{base}/v1/execute", headers=prepaid, json=call)
    assert paid.status_code == 200, paid.text
    balance = httpx.get(f"{base}/v1/customers/prepaid/balance", headers=prepaid).json()
    assert Decimal(balance["available"]) == PREPAID_CREDITS - Decimal(paid.headers["x-usage-charge"])
    assert Decimal(balance["available"]) < PREPAID_CREDITS
    assert (balance["hard"], balance["held"]) == (True, "0")
    assert second.stop() == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{base}/healthz")


def test_a_port_in_use_is_said_before_anything_starts(databases: Databases, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        refused = Up(databases._empty(), tmp_path, taken.getsockname()[1])
        out, _ = refused.process.communicate(timeout=60)
    assert refused.process.returncode == 1
    assert f"Cannot listen on 127.0.0.1 port {refused.port}: Address already in use" in out
