"""The environment: every variable that Tollgate reads, with its type, its default and its meaning.

`.env.example` is this table as text (`python -m project.environment`). A value comes from the process, from the file that
`NAME_FILE` names (secrets), from `.env`, or from the default here. A wrong one raises `WrongSetting` with name and value;
a secret's value is never repeated.
"""

import os
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
import msgspec
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
LEVELS = ("debug", "info", "warning", "error")


class WrongSetting(ImproperlyConfigured):
    """A variable of the environment has a value that cannot be used."""


class Variable(msgspec.Struct, frozen=True):
    """One variable. `default` is written as in the environment; `least` and `most` bound a number, both included."""

    name: str
    kind: str  # text | secret | flag | number | list | url | level | path
    default: str
    meaning: str
    least: int = 0
    most: int = 2**31
    schemes: tuple[str, ...] = ()  # that a url may have
    also: str = ""  # an older name of the same variable


def _sections() -> dict[str, tuple[Variable, ...]]:
    v = Variable
    return {
        "Server": (
            v("HOST", "text", "127.0.0.1", "Address that the web process listens on."),
            v("PORT", "number", "8005", "Port that it listens on.", least=1, most=65535),
            v("ALLOWED_HOSTS", "list", "", "Host names that are answered. Empty: HOST and the loopback names; any name where HOST is 0.0.0.0 or ::."),
            v("TRUSTED_ORIGINS", "list", "", "Origins that may post forms, such as https://tollgate.example.com, behind a proxy that changes the host."),
            v("HTTPS", "flag", "false", "Served over HTTPS only: secure cookies and HSTS."),
            v("DEBUG", "flag", "false", "Error pages with their insides. Never on a reachable host."),
            v("SECRET_KEY", "secret", "", "Signs sessions. Empty: a key that is made once and kept in var/secret_key; several hosts need the same."),
            v("JWT_SECRET", "secret", "", "Signs tokens; several with commas, the newest first, at least 32 characters each."),
            v("FIELD_ENCRYPTION_KEYS", "secret", "", "Encrypts stored secrets; several with commas, the newest first."),
        ),
        "Storage": (
            v("VAR_DIR", "path", "var", "Where files are kept: the SQLite database, generated secrets, Celery's queue without Redis."),
            v("DATABASE_URL", "url", "", "postgres://user:password@host:5432/name or sqlite:///path. Empty: SQLite under var/.", schemes=("postgres", "postgresql", "sqlite")),
            v("DB_POOL", "number", "0", "Connections to PostgreSQL that the requests of a process share; 0: one is opened for each request.", most=1000),
            v("REDIS_URL", "url", "", "redis://host:6379. Empty: no Redis is used.", schemes=("redis", "rediss", "unix")),
            v("REDIS_HOST", "text", "", "Instead of REDIS_URL: the host."),
            v("REDIS_PORT", "number", "6379", "Beside REDIS_HOST: the port.", least=1, most=65535),
            v("REDIS_DB", "number", "2", "The Redis database that Tollgate uses, where the URL names none.", most=65535),
            v("CELERY_BROKER_URL", "url", "", "Celery's broker. Empty: Redis where there is one, else files under var/."),
        ),
        "Metering": (
            v("ENABLE_PRICING_MIDDLEWARE", "flag", "true", "Meter the routes. Off: everything passes unmetered."),
            v("METERED_ROUTES", "path", "", "TOML file with the metered routes. Empty: /v1/execute and the pass-through routes."),
            v("SNAPSHOT_MAX_STALE_S", "number", "300", "Seconds for which a known caller is still admitted while the database is away.", most=86400),
            v("WHO_PAYS", "list", "", "Shares that customers pay of what does not go as it should, as docs/who-pays.md says them: cached=0.5,unanswered=1."),
            v("SPOOL_DIR", "path", "", "Where calls are kept while the database is away (plans with outage open): a local disk that outlives the process. Empty: spool/ in VAR_DIR."),
            v("SPOOL_MAX_MB", "number", "256", "Bound of the spool of each process in megabytes; beyond it new calls are refused.", least=1),
            v("USAGE_RETENTION_DAYS", "number", "90", "Days for which usage events are kept.", least=1),
        ),
        "Upstreams of the gateway (without one, the built-in demo models answer)": tuple(
            variable
            for provider in ("OPENAI", "ANTHROPIC", "GOOGLE")
            for variable in (
                v(f"UPSTREAM_{provider}_URL", "url", "", f"Base URL of the {provider.capitalize()} API.", schemes=("http", "https")),
                v(f"UPSTREAM_{provider}_KEY", "secret", "", "Key for it. The caller's own key is never passed on."),
            )
        ),
        "Billing": (
            v("CURRENCY", "text", "USD", "Currency of new customers, ISO 4217."),
            v("REPORT_HOUR_UTC", "number", "2", "Hour of the nightly close and report, UTC.", most=23),
            v("BILLING_CRON", "text", "0 1 1 * *", "When the periods that are over are invoiced, as a crontab in UTC."),
            v("BILLING_GRACE_HOURS", "number", "0", "Hours that a period waits after its end for what comes late.", most=2400),
            v("INVOICE_DUE_DAYS", "number", "14", "Days from an invoice to the day on which it is due.", most=365),
            v("STRIPE_SECRET_KEY", "secret", "", "Stripe's secret key. Empty: nothing is reported to Stripe.", also="STRIPE_API_KEY"),
            v("STRIPE_API_BASE", "url", "", "Another address of Stripe's API, for tests.", schemes=("http", "https")),
            v("STRIPE_WEBHOOK_SECRET", "secret", "", "Signing secrets of the webhook endpoint, with commas."),
            v("STRIPE_THIN_WEBHOOK_SECRET", "secret", "", "The same for thin events."),
            v("PORTAL_RETURN_URLS", "list", "", "URLs that the portal may send a customer back to."),
        ),
        "Operations": (
            v("LOG_LEVEL", "level", "info", "debug, info, warning or error."),
            v("LOG_LEVEL_METERING", "level", "", "The same for one app. Empty: LOG_LEVEL."),
            v("LOG_LEVEL_PRICING", "level", "", "The same for one app. Empty: LOG_LEVEL."),
            v("LOG_LEVEL_BILLING", "level", "", "The same for one app. Empty: LOG_LEVEL."),
            v("METRICS_TOKEN", "secret", "", "Bearer token that /metrics asks for. Empty: open."),
            v("EMAIL_URL", "url", "", "smtp://user:password@host:587. Empty: e-mails are written to the log."),
            v("REPLY_TO", "text", "", "Address that answers to e-mails go to."),
            v("OPERATOR_EMAILS", "list", "", "Who is told of failed jobs."),
        ),
    }  # fmt: skip


SECTIONS: Mapping[str, tuple[Variable, ...]] = _sections()
VARIABLES: Mapping[str, Variable] = {
    variable.name: variable for part in SECTIONS.values() for variable in part
}


def load_dotenv(path: Path = BASE_DIR / ".env") -> None:
    """Take over `.env`, where there is one. What the process has already wins."""
    if path.is_file():
        environ.Env.read_env(str(path))


def raw(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """The value as written, without surrounding blanks; the default where it is unset or empty.

    Raises KeyError for a name that is not in the table, WrongSetting for a NAME_FILE that cannot be read.
    """
    variable = VARIABLES[name]
    for candidate in filter(None, (name, variable.also)):
        value = environment.get(candidate, "").strip()
        if value:
            return value
        if file := environment.get(f"{candidate}_FILE", "").strip():
            return _file_content(candidate, file)
    return variable.default


def _file_content(name: str, file: str) -> str:
    try:
        return Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise WrongSetting(f"{name}_FILE={file!r}: cannot be read ({error})") from None


def text(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """A text, a secret, or a URL, checked by its kind. "" where there is none."""
    value = raw(name, environment)
    check = _CHECKS.get(VARIABLES[name].kind)
    if value and check is not None:
        check(VARIABLES[name], value)
    return value


def flag(name: str, environment: Mapping[str, str] = os.environ) -> bool:
    """A yes or no."""
    value = raw(name, environment).lower()
    if value in ("true", "1", "yes", "on"):
        return True
    if value in ("false", "0", "no", "off"):
        return False
    raise wrong(name, value, "is neither true nor false")


def number(name: str, environment: Mapping[str, str] = os.environ) -> int:
    """A whole number within its bounds."""
    variable, value = VARIABLES[name], raw(name, environment)
    if not (value.isascii() and value.isdigit()):
        raise wrong(name, value, "is not a whole number")
    if not variable.least <= int(value) <= variable.most:
        raise wrong(name, value, f"is not between {variable.least} and {variable.most}")
    return int(value)


def listing(name: str, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The parts of a list with commas; blanks and empty parts fall away."""
    return [part.strip() for part in text(name, environment).split(",") if part.strip()]


def path(name: str, environment: Mapping[str, str] = os.environ) -> Path | None:
    """A path, relative ones from the project's folder. None where there is none."""
    value = raw(name, environment)
    return BASE_DIR / value if value else None


def level(name: str, environment: Mapping[str, str] = os.environ) -> str:
    """A log level in capitals; the general one where this one is empty."""
    return (text(name, environment) or text("LOG_LEVEL", environment)).upper()


def check_all(environment: Mapping[str, str] = os.environ) -> None:
    """Read every variable once, so that a wrong one stops the start and not the first request that needs it."""
    readers: dict[str, Callable[..., Any]] = {"flag": flag, "number": number, "list": listing}
    for variable in VARIABLES.values():
        readers.get(variable.kind, text)(variable.name, environment)


def wrong(name: str, value: str, why: str) -> WrongSetting:
    """The error for a variable; a secret's value stays out of it."""
    shown = f"({len(value)} characters)" if VARIABLES[name].kind == "secret" else f"={value!r}"
    return WrongSetting(f"{name}{shown}: {why}")


def _check_url(variable: Variable, value: str) -> None:
    # The value is not repeated: a URL may hold a password.
    scheme, separator, _rest = value.partition("://")
    if not separator:
        raise WrongSetting(f"{variable.name}: is not a URL (it starts with {value[:8]!r})")
    if variable.schemes and scheme not in variable.schemes:
        raise WrongSetting(f"{variable.name}={scheme}://…: must start with {' or '.join(variable.schemes)}")
    try:
        _ = urlsplit(value).port
    except ValueError as error:
        raise WrongSetting(f"{variable.name}={scheme}://…: {error}") from None


def _check_level(variable: Variable, value: str) -> None:
    if value.lower() not in LEVELS:
        raise wrong(variable.name, value, f"must be one of {', '.join(LEVELS)}")


_CHECKS: dict[str, Callable[[Variable, str], None]] = {"url": _check_url, "level": _check_level}


def example() -> str:
    """The text of `.env.example`."""
    lines = ["# Everything that Tollgate reads from the environment; all of it is optional. Copy to .env and uncomment.",
             "# Secrets may come from files as well: NAME_FILE=/run/secrets/name."]  # fmt: skip
    for title, variables in SECTIONS.items():
        lines += ["", f"# --- {title}"]
        for variable in variables:
            kind = f"{variable.kind}, default {variable.default or 'none'}"
            lines += ["", *(f"# {line}" for line in textwrap.wrap(f"{variable.meaning} ({kind})", 108))]
            if variable.also:
                lines.append(f"# Also read from {variable.also}.")
            lines.append(f"# {variable.name}={variable.default}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(example(), end="")  # noqa: T201  (its purpose)
