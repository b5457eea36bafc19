"""`manage.py up`: everything on this machine, with demo data, from one command."""

import os
import socket
import sys
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser
from io import StringIO
from typing import Any

from django.conf import settings
from django.core.management import BaseCommand, CommandError, call_command

from billing import demo
from project.environment import BASE_DIR
from project.processes import Program, Together

READY_S_MAX = 60.0
LIST_MARKUP_PERCENT = "20"  # what the demo charges above the providers' prices


class Command(BaseCommand):
    help = "Migrate, load prices and demo data, and run web, worker and beat until Ctrl-C."
    requires_system_checks = ()  # `migrate` runs them

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default=settings.HOST, help="address to listen on (HOST)")
        parser.add_argument("--port", type=int, default=settings.PORT, help="port to listen on (PORT)")

    def handle(self, *args: Any, host: str, port: int, **options: Any) -> None:
        check_port(host, port)
        call_command("migrate", interactive=False, verbosity=0)
        call_command("load_prices", list_markup=LIST_MARKUP_PERCENT, stdout=StringIO())
        loaded = demo.load(settings.VAR_DIR / "demo.json")
        environment = {**os.environ, "HOST": host, "PORT": str(port), "PYTHONUNBUFFERED": "1"}
        together = Together(programs(host, port), environment)
        together.start()
        ended: tuple[str, int] | None = None
        try:
            if wait_until_ready(together, url(host, port)):
                self.stdout.write(welcome(url(host, port), loaded))
                self.stdout.flush()
            ended = together.wait()
        finally:
            self.stdout.write("Stopping …")
            together.stop()
        if ended is not None:
            name, code = ended
            self.stderr.write(f"{name} ended by itself with exit code {code}; everything was stopped.")
            sys.exit(code if code > 0 else 1)


def check_port(host: str, port: int) -> None:
    """Raise CommandError unless a server can listen there."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise CommandError(
            f"Cannot listen on {host} port {port}: {error.strerror}. Choose another: PORT=8006"
        ) from None


def programs(host: str, port: int) -> list[Program]:
    """What runs: one web process, and one that is both worker and beat."""
    web = [sys.executable, "-m", "uvicorn", "project.asgi:application", "--host", host, "--port", str(port)]
    web += ["--log-level", "warning", "--no-access-log", "--app-dir", str(BASE_DIR)]
    web += ["--timeout-graceful-shutdown", "8"]  # a stream that goes on for ever must not outlast the stop
    worker = [
        sys.executable,
        "-m",
        "celery",
        "--workdir",
        str(BASE_DIR),
        "--app",
        "project",
        "--quiet",
        "worker",
    ]
    worker += [
        "--beat",
        "--schedule",
        settings.CELERY_BEAT_SCHEDULE_FILENAME,
        "--pool",
        "threads",
        "--concurrency",
        "2",
    ]
    worker += ["--loglevel", "WARNING", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    return [Program("web", web), Program("worker", worker)]


def url(host: str, port: int) -> str:
    """Where this machine reaches the server."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{reachable}:{port}"


def wait_until_ready(together: Together, base: str) -> bool:
    """Wait for /readyz. False when something ended, or the stop came first. Raises CommandError after a minute."""
    deadline = time.monotonic() + READY_S_MAX
    while not together.told_to_stop and together.failed() is None:
        try:
            with urllib.request.urlopen(f"{base}/readyz", timeout=5):  # noqa: S310  (our own address)
                return True
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > deadline:
                raise CommandError(f"The web process is not ready after {READY_S_MAX:g} s: {error}") from None
            time.sleep(0.1)
    return False


def welcome(base: str, loaded: demo.Demo) -> str:
    """What a new user needs to know."""
    logins = "\n".join(f"  {name:<8} {password}" for name, password in loaded.passwords.items())
    body = '{"task_type": "chat", "model": "demo-small", "prompt": "Hello, Tollgate"}'
    bearer = f"-H 'Authorization: Bearer {loaded.api_key}'"
    return f"""
Tollgate runs at {base}
  Usage page:  {base}/portal/usage   (log in as demo, acme or prepaid)
  Operations:  {base}/admin/         (log in as admin)
  Machines:    {base}/healthz  {base}/readyz  {base}/metrics

API key: {loaded.api_key}
Prepaid API key: {loaded.prepaid_api_key}
Operator token: {loaded.operator_token}

Logins (user, password):
{logins}

Make a call, then look at what it cost:
  curl -i {base}/v1/execute {bearer} -H 'Content-Type: application/json' -d '{body}'
  curl {base}/v1/billing/usage {bearer}

The official clients work with that key; the models are demo-small and demo-large:
  OpenAI     base_url="{base}/v1"
  Anthropic  base_url="{base}"
  Google     http_options={{"base_url": "{base}"}}

Ctrl-C stops everything."""
