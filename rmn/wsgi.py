from __future__ import annotations

import gc
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "rmn.settings")
application = get_wsgi_application()

# What is imported lives as long as the process: the collector need not look through it again for every few
# requests, and processes forked after this share its pages.
gc.collect()
gc.freeze()
gc.set_threshold(10_000, 10, 10)
