"""Whether a process of ours does its work, by its metrics: `python -m streams.ready URL`, for health checks."""

from __future__ import annotations

import sys
import urllib.request

READY = b"headstream_ready 1.0"
TIMEOUT_SECONDS = 5.0


def is_ready(url: str) -> bool:
    """Whether the process whose metrics are at `url` says that it is ready; False where nothing answers."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(url, timeout=TIMEOUT_SECONDS) as answer:
            return READY in answer.read().splitlines()
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(0 if is_ready(sys.argv[1]) else 1)
