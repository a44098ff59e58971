#!/usr/bin/env python
"""Every command of the project starts here: python manage.py NAME --help."""

from __future__ import annotations

import os
import sys


def main() -> None:
    # OpenMP threads that spin at barriers starve every other process on a busy machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rmn.settings")
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
