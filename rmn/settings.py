"""Every setting, read once, typed; what differs between places is the environment, not this file.

``.env`` beside manage.py is read where it exists (written by ``make install``). A bad value stops
the start with the name of the variable. Any secret may come from a file: NAME_FILE=/path.
"""

from __future__ import annotations

import os
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import django_stubs_ext
import environ
import pymysql
from celery.schedules import crontab
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # the model libraries report their use unless told not to
django_stubs_ext.monkeypatch()
pymysql.install_as_MySQLdb()
pymysql.version_info = (2, 2, 7, "final", 0)  # the level of mysqlclient that Django asks for

BASE_DIR = Path(__file__).resolve().parent.parent
VAR = Path(os.environ.get("RMN_VAR") or BASE_DIR / "var")
env = environ.FileAwareEnv()
if (BASE_DIR / ".env").exists():
    env.read_env(BASE_DIR / ".env")


def flag(name: str, default: bool) -> bool:
    """True or False, and nothing else: a typing error must not open a door."""
    value = env.str(name, str(default)).strip().lower()
    if value not in ("true", "false"):
        raise ImproperlyConfigured(f"{name}={value}: write True or False")
    return value == "true"


def number(name: str, default: int, low: int = 0) -> int:
    raw = env.str(name, str(default))
    try:
        value = int(raw)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={raw}: a whole number was expected") from None
    if value < low:
        raise ImproperlyConfigured(f"{name}={raw}: at least {low} was expected")
    return value


# -- who we are
TESTING = "pytest" in sys.modules
DEBUG = flag("DEBUG", default=False)
SAMPLE_SECRET = "change-me"  # noqa: S105  # stands in .env.example; refused outside DEBUG
SECRET_KEY = env.str("SECRET_KEY", "test-only" if TESTING else "")
if not SECRET_KEY:
    raise ImproperlyConfigured("SECRET_KEY is not set: run 'make install', which writes .env, or set it")
if SECRET_KEY == SAMPLE_SECRET and not DEBUG:
    raise ImproperlyConfigured("SECRET_KEY is the sample one: set a random one of 50 characters")
SECRET_KEY_FALLBACKS = env.list("SECRET_KEY_BEFORE", default=[])  # sessions and tokens signed under them go on
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
OWN_NAMES = {"localhost", "127.0.0.1", "[::1]", "testserver"}
if DEBUG and (public := [host for host in ALLOWED_HOSTS if host not in OWN_NAMES and not host.endswith(".localhost")]):
    raise ImproperlyConfigured(
        f"DEBUG is on and ALLOWED_HOSTS has {public[0]}: a debug page would face others; DEBUG=False"
    )
RMN_ENVIRONMENT = env.str("RMN_ENVIRONMENT", "development" if DEBUG else "production")

INSTALLED_APPS = [
    "unfold.apps.BasicAppConfig",
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    "unfold.contrib.import_export",
    "unfold.contrib.simple_history",
    "rmn.apps.ConsoleConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_htmx",
    "template_partials",
    "rest_framework",
    "rest_framework_simplejwt",
    "rest_framework_simplejwt.token_blacklist",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_filters",
    "import_export",
    "simple_history",
    "django_celery_beat",
    "axes",
    "django_otp",
    "django_otp.plugins.otp_totp",
    "django_otp.plugins.otp_static",
    "csp",
    "django_prometheus",
    "django_structlog",
    "rmn.apps.RmnConfig",
    "retailers",
    "campaigns",
    "feedback",
    "agents",
    "training",
]

MIDDLEWARE = [
    "django_prometheus.middleware.PrometheusBeforeMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django_otp.middleware.OTPMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "csp.middleware.CSPMiddleware",
    "django_structlog.middlewares.RequestMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "rmn.lib.http.TenantMiddleware",
    "simple_history.middleware.HistoryRequestMiddleware",
    "axes.middleware.AxesMiddleware",
    "django_prometheus.middleware.PrometheusAfterMiddleware",
]

ROOT_URLCONF = "rmn.urls"
ADMIN_PATH = "admin/"
WSGI_APPLICATION = "rmn.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "rmn.lib.http.navigation",
            ],
            "builtins": ["rmn.templatetags.words"],
        },
    }
]

# -- storage
VAR.mkdir(exist_ok=True)


def database(url_name: str, fallback: str) -> dict[str, Any]:
    """One database from its URL, with what each engine needs to be safe under several writers."""
    try:
        config: dict[str, Any] = env.db_url(url_name, default=fallback)
    except (environ.ImproperlyConfigured, ValueError, KeyError) as error:
        raise ImproperlyConfigured(f"{url_name}: {error}") from None
    engine = config["ENGINE"].rsplit(".", 1)[-1]
    config.setdefault("OPTIONS", {})
    config["CONN_MAX_AGE"] = 60
    config["CONN_HEALTH_CHECKS"] = True
    if engine == "sqlite3":
        # Immediate transactions wait for the writer in front; deferred ones fail when they upgrade.
        config["OPTIONS"] |= {
            "transaction_mode": "IMMEDIATE",
            "timeout": 30,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA busy_timeout=30000;",
        }
    elif engine == "mysql":
        config["OPTIONS"] |= {
            "charset": "utf8mb4",
            "init_command": "SET sql_mode='STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO'",
            "isolation_level": "read committed",
        }
    elif engine == "postgresql":
        config["ATOMIC_REQUESTS"] = True  # row-level security is set inside the request's transaction
    return config


DATABASES = {"default": database("DATABASE_URL", f"sqlite:///{VAR / 'db.sqlite3'}")}
if env.str("DATABASE_ADMIN_URL", "") and {"migrate", "restore"} & set(sys.argv[1:2]):
    DATABASES["default"] = database("DATABASE_ADMIN_URL", "")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
if TESTING:
    if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
        # a file: threads of a live server that share one in memory find its tables locked
        DATABASES["default"]["TEST"] = {"NAME": str(Path(tempfile.gettempdir()) / f"rmn-test-{os.getppid()}.sqlite3")}
    # Our own migrations run in the tests; the eighty of others would take a quarter of a minute each time.
    MIGRATION_MODULES = dict.fromkeys(
        [
            "admin",
            "auth",
            "contenttypes",
            "sessions",
            "axes",
            "django_celery_beat",
            "otp_static",
            "otp_totp",
            "token_blacklist",
        ]
    )
# Several web processes share their allowances and what they keep only where a cache of their own is named.
CACHES = {"default": env.cache_url("RMN_CACHE_URL", default="locmemcache://")}
if CACHES["default"]["BACKEND"].endswith("RedisCache"):
    CACHES["default"]["BACKEND"] = "rmn.lib.cache.ForgivingCache"
    CACHES["default"]["OPTIONS"] = {"socket_connect_timeout": 1, "socket_timeout": 2}

# -- work that outlives a request
VALKEY_PORT = number("RMN_VALKEY_PORT", 6390, low=1)
REDIS_URL = env.str("REDIS_URL", f"redis://127.0.0.1:{VALKEY_PORT}/0")
RMN_OWN_BROKER = not env.str("REDIS_URL", "")  # serve starts one beside the site
CELERY_BROKER_URL = REDIS_URL
RMN_WORKER_NICE = number("RMN_WORKER_NICE", 5)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 3600,  # longer than the longest task; training is a leased row, not a task
    "unacked_restore_interval": 1,  # with the defaults a lost message came back after 100 s
    "unacked_restore_throttle": 1,
    "socket_connect_timeout": 2,  # a request must not hang on an absent broker
    "socket_timeout": 10,
}
CELERY_TASK_PUBLISH_RETRY = False  # the Run row is the outbox; the sweep re-sends
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_TASK_SERIALIZER = CELERY_RESULT_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_TIME_LIMIT = 3300
CELERY_TASK_SOFT_TIME_LIMIT = 3000
CELERY_WORKER_MAX_TASKS_PER_CHILD = 500
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {
    "rmn.tasks.*": {"queue": "upkeep"},  # a long queue of other work must not hold up the sweep
    "retailers.tasks.announce": {"queue": "default"},
    "retailers.tasks.deliver": {"queue": "default"},
    "retailers.tasks.*": {"queue": "ingest"},
    "campaigns.tasks.*": {"queue": "optimize"},
    "training.tasks.*": {"queue": "train"},
    "agents.tasks.*": {"queue": "infer"},
}
CELERY_BEAT_SCHEDULER = "rmn.schedules:OnceScheduler"
CELERY_TIMEZONE = "UTC"
CELERY_BEAT_SCHEDULE: dict[str, Any] = {
    "sweep": {"task": "rmn.tasks.sweep", "schedule": 10.0, "options": {"expire_seconds": 10.0}},
    "announce": {"task": "retailers.tasks.announce", "schedule": 15.0, "options": {"expire_seconds": 15.0}},
    "watch-feeds": {"task": "retailers.tasks.watch_sources", "schedule": 300.0, "options": {"expire_seconds": 300.0}},
    "link-campaigns": {"task": "campaigns.tasks.link_all_campaigns", "schedule": 6 * 3600.0},
    "forecasts": {"task": "agents.tasks.resolve_forecasts", "schedule": 3600.0},
    "early-signs": {"task": "agents.tasks.watch_decisions", "schedule": 6 * 3600.0},
    "plan-again": {"task": "campaigns.tasks.plan_again", "schedule": crontab(hour=4, minute=15)},
    "audit": {"task": "retailers.tasks.verify_audit", "schedule": crontab(hour=1, minute=45)},
    "lessons": {"task": "training.tasks.teach_nightly", "schedule": crontab(hour=2, minute=30)},
    "figures": {"task": "rmn.tasks.figures", "schedule": 300.0},
    "digest": {"task": "rmn.tasks.digest", "schedule": 1800.0},
    "tidy": {"task": "rmn.tasks.tidy", "schedule": 6 * 3600.0},
    "canaries": {"task": "agents.tasks.watch_canaries", "schedule": 120.0},
}

# -- people
AUTHENTICATION_BACKENDS = ["axes.backends.AxesStandaloneBackend", "django.contrib.auth.backends.ModelBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
if TESTING:
    PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the real one takes half a second a person
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "login"
AXES_FAILURE_LIMIT = number("RMN_LOGIN_FAILURES", 5, low=1)
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
RMN_REQUIRE_OTP = flag("RMN_REQUIRE_OTP", default=not DEBUG and not TESTING)
EMAIL_BACKEND = env.str("EMAIL_BACKEND", "django.core.mail.backends.console.EmailBackend")
EMAIL_HOST = env.str("EMAIL_HOST", "localhost")
EMAIL_PORT = number("EMAIL_PORT", 25)
EMAIL_HOST_USER = env.str("EMAIL_HOST_USER", "")
EMAIL_HOST_PASSWORD = env.str("EMAIL_HOST_PASSWORD", "")
EMAIL_USE_TLS = flag("EMAIL_USE_TLS", default=False)
RMN_SITE_URL = env.str("RMN_SITE_URL", "http://127.0.0.1:8000").rstrip("/")  # for links in e-mails
RMN_DIGEST_HOUR = number("RMN_DIGEST_HOUR", 6)  # UTC; 24 sends none
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", "rmn@localhost")

# -- the web
LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
USE_I18N = False
STATIC_URL = "static/"
STATIC_ROOT = VAR / "static"
STATICFILES_DIRS = [BASE_DIR / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG or TESTING
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = DEBUG
MEDIA_ROOT = VAR / "files"
DATA_UPLOAD_MAX_MEMORY_SIZE = 5 * 2**20
DATA_UPLOAD_MAX_NUMBER_FIELDS = 2000
FILE_UPLOAD_MAX_MEMORY_SIZE = 2 * 2**20
RMN_UPLOAD_MAX_BYTES = number("RMN_UPLOAD_MAX_MB", 256, low=1) * 2**20

X_FRAME_OPTIONS = "DENY"
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_SSL_REDIRECT = flag("SECURE_SSL_REDIRECT", default=not DEBUG and not TESTING)
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
SECURE_HSTS_SECONDS = 0 if DEBUG or TESTING else number("SECURE_HSTS_SECONDS", 31536000)
SECURE_HSTS_INCLUDE_SUBDOMAINS = not DEBUG
SECURE_HSTS_PRELOAD = not DEBUG
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
if flag("RMN_BEHIND_PROXY", default=False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# The screens run no inline script; the console's Alpine does, and gets its own policy in rmn.lib.http.
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF, "'unsafe-inline'"],  # vega and htmx set style attributes
        "img-src": [SELF, "data:", "blob:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "base-uri": [SELF],
        "frame-ancestors": [NONE],
        "manifest-src": [SELF],
    }
}

# -- the API
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "rmn.lib.bearer.Bearer",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser", "rest_framework.parsers.MultiPartParser"],
    "DEFAULT_PAGINATION_CLASS": "rmn.lib.problems.Pages",
    "PAGE_SIZE": 50,
    "DEFAULT_FILTER_BACKENDS": ["rmn.lib.problems.Filters"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "rmn.lib.problems.problem",
    "DEFAULT_VERSIONING_CLASS": None,
    "DEFAULT_THROTTLE_CLASSES": ["rmn.lib.problems.BrandThrottle"],
    "DEFAULT_THROTTLE_RATES": {"brand": env.str("RMN_API_RATE", "6000/min"), "login": "20/min"},
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
DJANGO_STRUCTLOG_IP_LOGGING_ENABLED = (
    False  # the log names who asks; where they sit is theirs (logins keep it, in axes)
)
SIMPLE_JWT = {
    "ACCESS_TOKEN_LIFETIME": timedelta(minutes=15),
    "REFRESH_TOKEN_LIFETIME": timedelta(days=14),
    "ROTATE_REFRESH_TOKENS": True,
    "BLACKLIST_AFTER_ROTATION": True,
    "UPDATE_LAST_LOGIN": False,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "RMN",
    "DESCRIPTION": "Retail media: harmonized metrics, budgets, experiments, copy, feedback, adapters.",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "COMPONENT_SPLIT_REQUEST": True,
    "POSTPROCESSING_HOOKS": ["drf_spectacular.hooks.postprocess_schema_enums", "rmn.lib.problems.name_problems"],
    "ENUM_ADD_EXPLICIT_BLANK_NULL_CHOICE": True,
    "ENUM_NAME_OVERRIDES": {
        "RunStatus": "rmn.lib.runs.Run.Status",
        "CampaignStatus": "campaigns.models.Campaign.Status",
        "RecommendationStatus": "campaigns.models.Recommendation.Status",
        "QuarantineStatus": "retailers.models.QuarantinedRow.Status",
        "ReviewTaskStatus": "feedback.models.ReviewTask.Status",
        "ForecastStatus": "agents.models.Forecast.Status",
        "FeedbackKind": "feedback.models.Feedback.Kind",
        "AnswerKind": ["thumb", "rating", "correction"],
        "DatasetKind": ["sft", "dpo", "kto"],
        "AdapterKind": "agents.models.Adapter.Kind",
        "PairOutcome": "feedback.models.Feedback.Outcome",
        "DecisionOutcome": ["approve", "reject"],
    },
}

# -- the model, its server and what may be reached outside
RMN_CACHE = Path(env.str("RMN_CACHE", str(Path.home() / ".cache" / "rmn"))).expanduser()
RMN_BASE_MODEL = Path(env.str("RMN_BASE_MODEL", str(VAR / "models" / "base")))
RMN_TRAIN_DEVICE = env.str("RMN_TRAIN_DEVICE", "cpu")  # cpu or cuda: what estimates are made for
RMN_TRAIN_PRICE_PER_HOUR = env.float("RMN_TRAIN_PRICE_PER_HOUR", 0.0)  # USD of the training host; 0: no cost is told
RMN_ADAPTERS = Path(env.str("RMN_ADAPTERS", str(VAR / "adapters")))
RMN_ADAPTERS_ON_SERVER = env.str("RMN_ADAPTERS_ON_SERVER", "")  # the same folder as the model server sees it
RMN_INFERENCE_URL = env.str("RMN_INFERENCE_URL", "")
RMN_INFERENCE_KIND = env.str("RMN_INFERENCE_KIND", "tgi")
if RMN_INFERENCE_KIND not in ("tgi", "openai", "vllm"):
    raise ImproperlyConfigured(f"RMN_INFERENCE_KIND={RMN_INFERENCE_KIND}: tgi, openai or vllm")
RMN_PLANNER = env.str("RMN_PLANNER", "auto")
if RMN_PLANNER not in ("auto", "model", "playbook"):
    raise ImproperlyConfigured(f"RMN_PLANNER={RMN_PLANNER}: auto, model or playbook")
RMN_TOKEN_PRICE = env.float("RMN_TOKEN_PRICE", 0.0)  # USD for a million tokens, for the cost limit of plans
RMN_FOUR_EYES_ABOVE = number(
    "RMN_FOUR_EYES_ABOVE", 0
)  # two people approve from this amount on; 0: as brands' rules say
RMN_NAME_MODEL = env.str("RMN_NAME_MODEL", "")  # a spaCy pipeline installed as a package; for workers and commands
RMN_SENTENCE_MODEL = env.str(
    "RMN_SENTENCE_MODEL", ""
)  # a sentence model installed as a package, beside the policy's rules
RMN_SENTENCE_NETWORKS = env.list("RMN_SENTENCE_NETWORKS", default=[])  # where it looks; empty: everywhere
RMN_AUDIT_HEADS = Path(env.str("RMN_AUDIT_HEADS", str(VAR / "audit_heads")))  # best a disk of another host
RMN_OUTBOUND_ALLOW = env.list("RMN_OUTBOUND_ALLOW", default=[])
if inside := [one for one in RMN_OUTBOUND_ALLOW if one.strip().lower().startswith("http") and not (DEBUG or TESTING)]:
    raise ImproperlyConfigured(
        f"RMN_OUTBOUND_ALLOW has {inside[0]}: this machine's own services are reached in DEBUG alone"
    )
RMN_DATA_KEY = env.str("RMN_DATA_KEY", SECRET_KEY)  # seals credentials and keys personal-data tags
RMN_DATA_KEY_BEFORE = env.list("RMN_DATA_KEY_BEFORE", default=SECRET_KEY_FALLBACKS)  # what they sealed still opens

# -- logs and figures
RMN_METRICS_TOKEN = env.str("RMN_METRICS_TOKEN", "")
LOG_JSON = flag("RMN_LOG_JSON", default=not DEBUG)
LOG_LEVEL = env.str("RMN_LOG_LEVEL", "WARNING" if TESTING else "INFO")
DJANGO_STRUCTLOG_CELERY_ENABLED = True
PROMETHEUS_EXPORT_MIGRATIONS = False
SIMPLE_HISTORY_REVERT_DISABLED = False
IMPORT_EXPORT_ESCAPE_FORMULAE_ON_EXPORT = True
LOGGING_CONFIG = "rmn.logging.configure"
LOGGING: dict[str, Any] = {"level": LOG_LEVEL, "json": LOG_JSON}
SILENCED_SYSTEM_CHECKS = ["axes.W003"]

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "RMN console",
    "SITE_HEADER": "RMN",
    "SITE_SUBHEADER": "Retail media operations",
    "SITE_URL": "/",
    "SHOW_HISTORY": True,
    "SHOW_VIEW_ON_SITE": False,
    "ENVIRONMENT": "rmn.dashboard.environment",
    "DASHBOARD_CALLBACK": "rmn.dashboard.console",
    "COMMAND": {"search_models": True, "show_history": True},
    "STYLES": ["rmn.console.styles"],
    "BORDER_RADIUS": "6px",
    "COLORS": {  # the screens' accent and ink, so that console and screens are one hand
        "primary": {
            "50": "#eef4fc",
            "100": "#e6eefa",
            "200": "#c6d9f4",
            "300": "#a3c4f3",
            "400": "#85b2ff",
            "500": "#3c78cf",
            "600": "#1f5bb5",
            "700": "#1a4c98",
            "800": "#183f7c",
            "900": "#152f5a",
            "950": "#0d1d39",
        },
    },
    "SIDEBAR": {"show_search": True, "show_all_applications": True, "navigation": "rmn.dashboard.navigation"},
}
