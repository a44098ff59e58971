"""Set-up from nothing but Python 3.11: environment, dependencies, .env, base model, database.

Run by ``make install`` (and by demo, run and test) with the system's Python; only the standard
library is at hand here. Every step is skipped when it is done and begun anew when it was cut off.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "rmn-requirements.sha256"
# base and dev carry hashes; torch's CPU and CUDA builds differ, so train does not.
REQUIREMENTS = ("base.txt", "train.txt", "dev.txt")
SPACE_NEEDED = 5 * 2**30
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "HF_HUB_OFFLINE": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(prog="install", description=__doc__)
    parser.add_argument("--no-model", action="store_true", help="leave the base model out")
    options = parser.parse_args()
    started = time.monotonic()
    check_python()
    make_environment()
    install_requirements()
    write_env()
    if not options.no_model:
        prepare_model()
    migrate()
    say(f"set up in {time.monotonic() - started:.0f} s")


def check_python() -> None:
    if not (3, 11) <= sys.version_info[:2] < (3, 13):
        stop(f"Python {sys.version.split()[0]} runs this; 3.11 or 3.12 is needed: make PYTHON=/path/to/python3.11 ...")


def make_environment() -> None:
    if (
        PYTHON.exists()
        and subprocess.run([PYTHON, "-c", "import pip"], capture_output=True, check=False).returncode == 0
    ):
        return
    free = shutil.disk_usage(ROOT).free
    if free < SPACE_NEEDED:
        stop(f"{free / 2**30:.1f} GB are free under {ROOT}, about 5 GB are needed: make room, then run it again")
    say("making the virtual environment .venv")
    try:
        venv.create(VENV, with_pip=True, clear=VENV.is_dir() and not VENV.is_symlink())
    except (OSError, subprocess.CalledProcessError) as error:
        stop(f"the virtual environment could not be made ({error}); on Debian: apt-get install python3-venv")


def install_requirements() -> None:
    files = [ROOT / "requirements" / name for name in REQUIREMENTS]
    wanted = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    for file in files:
        say(f"installing {file.relative_to(ROOT)} (the first time takes some minutes)")
        pip(file)
    STAMP.write_text(wanted)


def pip(file: Path) -> None:
    command = [str(PYTHON), "-m", "pip", "install", "--progress-bar", "off", "--no-input", "-r", str(file)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **ENVIRONMENT},
        cwd=ROOT,
    )
    lines: list[str] = []
    last = time.monotonic()
    assert process.stdout is not None  # noqa: S101  # asked for above
    for line in process.stdout:
        lines.append(line.rstrip())
        if time.monotonic() - last > 5 and line.startswith(("Collecting", "Downloading", "Installing")):
            say(f"  {line.strip()[:90]}")
            last = time.monotonic()
    if process.wait():
        text = "\n".join(lines)
        errors = [line for line in lines if line.startswith("ERROR")] or lines[-1:]
        cause = "no space left on the disk" if "No space left" in text else errors[-1] if errors else "pip failed"
        unreachable = (
            "Temporary failure",
            "NewConnectionError",
            "Connection refused",
            "Could not find a version",
            "timed out",
        )
        hint = "is the package index reachable?" if any(word in text for word in unreachable) else "see the line above"
        stop(f"{file.name}: {cause[:200]}; {hint} Run the same command again: it carries on")


def write_env() -> None:
    target = ROOT / ".env"
    if target.exists():
        return
    text = (
        (ROOT / ".env.example").read_text().replace("SECRET_KEY=change-me", f"SECRET_KEY={secrets.token_urlsafe(48)}")
    )
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    say("wrote .env with a fresh secret")


def prepare_model() -> None:
    link = ROOT / "var" / "models" / "base"
    if (link / "manifest.json").exists():
        return
    say("preparing the base model SmolLM2-135M-Instruct (once per machine)")
    command = [str(PYTHON), "-m", "agents.inference.base", "--link", str(link)]
    cache = os.environ.get("RMN_CACHE")
    run([*command, "--cache", cache] if cache else command, "the base model could not be prepared")


def migrate() -> None:
    run([str(PYTHON), "manage.py", "migrate", "--verbosity", "0"], "the database could not be migrated")


def run(command: list[str], what: str) -> None:
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **ENVIRONMENT}, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        stop(f"{what}: {last[:300]}")
    for line in done.stderr.splitlines():
        say(f"  {line}")


def say(message: str) -> None:
    sys.stderr.write(f"install: {message}\n")
    sys.stderr.flush()


def stop(message: str) -> NoReturn:
    sys.stderr.write(f"install: {message}\n")
    sys.exit(2)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        stop("stopped; run the same command again to carry on")
    except OSError as error:
        stop(f"{error.filename or ROOT}: {error.strerror or error}; then run it again")
