"""Django's settings, from the environment alone (`project.environment` has the table of variables)."""

import os
import secrets
from pathlib import Path
from typing import Any

import environ
from celery.schedules import crontab

from metering.policy import InvalidPolicy, WhoPays
from metering.store.postgres import NETWORK
from project import environment
from project.environment import BASE_DIR, flag, level, listing, number, text

environment.load_dotenv()
environment.check_all()

DEBUG = flag("DEBUG")
HOST, PORT = text("HOST"), number("PORT")
VAR_DIR = environment.path("VAR_DIR") or BASE_DIR / "var"
SECRET_CHARACTERS_MIN = 32


def _kept_secret(file: Path) -> str:
    """The secret in `file`, made at the first start. Another process that is first wins, so all have the same."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    if not file.exists():
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(secrets.token_urlsafe(48))
        try:
            os.link(draft, file)  # whole or not at all, unlike a write under the final name
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return file.read_text().strip()


def _strong(name: str, value: str) -> str:
    """The secret itself, unless it can be guessed and this is no place for debugging."""
    if not DEBUG and (len(value) < SECRET_CHARACTERS_MIN or value.startswith("django-insecure-")):
        raise environment.wrong(
            name, value, f"is shorter than {SECRET_CHARACTERS_MIN} characters or a known default"
        )
    return value


def _crontab(given: str) -> crontab:
    """When a job runs: minute, hour, day of the month, month, day of the week."""
    try:
        minute, hour, day, month, weekday = given.split()
        return crontab(minute=minute, hour=hour, day_of_month=day, month_of_year=month, day_of_week=weekday)
    except ValueError as error:
        raise environment.wrong("BILLING_CRON", given, f"is no crontab of five fields: {error}") from None


def _currency(code: str) -> str:
    if len(code) != 3 or not (code.isascii() and code.isalpha() and code.isupper()):
        raise environment.wrong("CURRENCY", code, "is not three capital letters")
    return code


def _who_pays(choices: list[str]) -> dict[str, str]:
    chosen = {name.strip(): value.strip() for name, _, value in (choice.partition("=") for choice in choices)}
    try:
        WhoPays.from_options(chosen)
    except InvalidPolicy as error:
        raise environment.wrong("WHO_PAYS", ",".join(choices), str(error)) from None
    return chosen


def _allowed_hosts() -> list[str]:
    if given := listing("ALLOWED_HOSTS"):
        return given
    return ["*"] if HOST in ("0.0.0.0", "::") else ["localhost", "127.0.0.1", "[::1]", HOST]  # noqa: S104


SECRET_KEY = _strong("SECRET_KEY", text("SECRET_KEY") or _kept_secret(VAR_DIR / "secret_key"))
JWT_SECRETS = [_strong("JWT_SECRET", secret) for secret in listing("JWT_SECRET")]
ALLOWED_HOSTS = _allowed_hosts()
CSRF_TRUSTED_ORIGINS = listing("TRUSTED_ORIGINS")
HTTPS = flag("HTTPS")

# --- applications

INSTALLED_APPS = [
    "project.apps.ProjectConfig",
    "billing.apps.BillingConfig",
    "metering.apps.MeteringConfig",
    "pricing.apps.PricingConfig",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
]
# Stock middleware hops to a thread and back for each request and each class; ours is native to both sync and async, and
# replaces three of them.
MIDDLEWARE = [
    "project.middleware.answer_headers",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
ROOT_URLCONF = "project.urls"
ASGI_APPLICATION = "project.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "/static/"

# --- storage


# The threads that keep one each for as long as the process lives: rate card, accounts, last use of keys, readiness.
RESIDENT_CONNECTIONS = 4


def _database() -> dict[str, Any]:
    url = text("DATABASE_URL") or f"sqlite:///{VAR_DIR / 'tollgate.sqlite3'}"
    database: dict[str, Any] = dict(environ.Env.db_url_config(url))
    if "sqlite" in database["ENGINE"]:
        return _sqlite(database)
    if "postgresql" not in database["ENGINE"]:
        raise environment.WrongSetting("DATABASE_URL: names neither PostgreSQL nor SQLite")
    if size := number("DB_POOL"):
        database.setdefault("OPTIONS", {})["pool"] = {"min_size": 1, "max_size": size + RESIDENT_CONNECTIONS}
    # A server that vanished without a word is noticed in seconds, and not after the quarter of an hour that TCP takes.
    database["OPTIONS"] = {**NETWORK, **database.get("OPTIONS", {})}
    return database


def _sqlite(database: dict[str, Any]) -> dict[str, Any]:
    """A file, also under test: a database in memory cannot be shared with the recorder's own connections."""
    file = BASE_DIR / database["NAME"]
    file.parent.mkdir(parents=True, exist_ok=True)
    return database | {
        "ENGINE": "metering.sqlite_backend",
        "NAME": str(file),
        "TEST": {"NAME": str(file.with_name(f"test_{file.name}"))},
    }


def _redis_url() -> str:
    url = text("REDIS_URL")
    if not url and (host := text("REDIS_HOST")):
        url = f"redis://{host}:{number('REDIS_PORT')}"
    if url and not url.startswith("unix") and url.count("/") == 2:
        url = f"{url}/{number('REDIS_DB')}"
    return url


DATABASES = {"default": _database()}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
REDIS_URL = _redis_url()

# --- time and language: stored, computed and shown in UTC

TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
FORMAT_MODULE_PATH = "project.formats"

# --- who may

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "tollgate:login"
LOGIN_REDIRECT_URL = "tollgate:usage"
LOGOUT_REDIRECT_URL = "tollgate:login"
SESSION_COOKIE_NAME = "tollgate_session"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = HTTPS
CSRF_COOKIE_HTTPONLY = True
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "billing.authentication.KeyAuthentication",
        "billing.authentication.PersonAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "EXCEPTION_HANDLER": "billing.problems.problem_for",
    "UNAUTHENTICATED_USER": None,
}

# --- Tollgate

CURRENCY = _currency(text("CURRENCY"))
METRICS_TOKEN = text("METRICS_TOKEN")
TOLLGATE: dict[str, Any] = {
    "METERED_ROUTES": str(environment.path("METERED_ROUTES") or ""),
    "GATE": "billing.accounts.build_gate",
    "ENABLE_PRICING_MIDDLEWARE": flag("ENABLE_PRICING_MIDDLEWARE"),
    "SNAPSHOT_MAX_STALE_S": number("SNAPSHOT_MAX_STALE_S"),
    "CURRENCY": CURRENCY,
    "WHO_PAYS": _who_pays(listing("WHO_PAYS")),
    "SPOOL_DIR": str(environment.path("SPOOL_DIR") or VAR_DIR / "spool"),
    "SPOOL_MAX_MB": number("SPOOL_MAX_MB"),
    "REDIS_URL": REDIS_URL,
    "BILLING_GRACE_HOURS": number("BILLING_GRACE_HOURS"),
    "INVOICE_DUE_DAYS": number("INVOICE_DUE_DAYS"),
}

# What the gateway reads; every one of them is a text, "" where there is none.
UPSTREAMS = {
    name: text(name)
    for name in (
        *("UPSTREAM_OPENAI_URL", "UPSTREAM_OPENAI_KEY", "UPSTREAM_ANTHROPIC_URL", "UPSTREAM_ANTHROPIC_KEY"),
        *("UPSTREAM_GOOGLE_URL", "UPSTREAM_GOOGLE_KEY"),
    )
}

# --- Celery: every job is a sweep over the state of the database, so a lost message costs one tick

CELERY_DIR = VAR_DIR / "celery"
BILLING_CRON = _crontab(text("BILLING_CRON"))


def _broker() -> tuple[str, dict[str, str]]:
    if given := text("CELERY_BROKER_URL") or REDIS_URL:
        return given, {}
    folders = {"data_folder_in": "queue", "data_folder_out": "queue", "control_folder": "control"}
    options = {option: str(CELERY_DIR / folder) for option, folder in folders.items()}
    for folder in options.values():
        Path(folder).mkdir(parents=True, exist_ok=True)
    return "filesystem://localhost", options  # without a host kombu warns at every start


CELERY_BROKER_URL, CELERY_BROKER_TRANSPORT_OPTIONS = _broker()
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_TIMEZONE = "UTC"
CELERY_ENABLE_UTC = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BEAT_SCHEDULE_FILENAME = str(CELERY_DIR / "beat")

# --- e-mail and log

if text("EMAIL_URL"):
    globals().update(environ.Env.email_url_config(text("EMAIL_URL")))
else:
    EMAIL_BACKEND = "django.core.mail.backends.console.EmailBackend"
DEFAULT_FROM_EMAIL = text("REPLY_TO") or "tollgate@localhost"
ADMINS = [("Operator", address) for address in listing("OPERATOR_EMAILS")]
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname:7} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": level("LOG_LEVEL")},
    "loggers": {
        "metering": {"level": level("LOG_LEVEL_METERING")},
        "pricing": {"level": level("LOG_LEVEL_PRICING")},
        "billing": {"level": level("LOG_LEVEL_BILLING")},
        # Django's own handler would print each line twice.
        "django": {"handlers": [], "propagate": True},
        "django.server": {"handlers": [], "propagate": True},
        # A 4xx is the caller's to know.
        "django.request": {"level": "ERROR"},
        "httpx": {"level": "WARNING"},
    },
}

# --- read and checked here, for what is still to come: jobs of billing, Stripe

FIELD_ENCRYPTION_KEYS = listing("FIELD_ENCRYPTION_KEYS")
USAGE_RETENTION_DAYS = number("USAGE_RETENTION_DAYS")
REPORT_HOUR_UTC = number("REPORT_HOUR_UTC")
STRIPE_SECRET_KEY, STRIPE_API_BASE = text("STRIPE_SECRET_KEY"), text("STRIPE_API_BASE")
STRIPE_WEBHOOK_SECRETS = listing("STRIPE_WEBHOOK_SECRET")
STRIPE_THIN_WEBHOOK_SECRETS = listing("STRIPE_THIN_WEBHOOK_SECRET")
PORTAL_RETURN_URLS = listing("PORTAL_RETURN_URLS")
REPLY_TO = text("REPLY_TO")
