"""A stop reaches the thread that waits for it, whatever libraries have done."""

from __future__ import annotations

import subprocess
import sys

from tests.system.installation import here

THREADS = """
import os
import streams.cli
print(len(os.listdir("/proc/self/task")))
"""


def test_no_library_has_started_a_thread_before_a_process_listens_for_stops() -> None:
    """It would hear them as well, and a process that is stuck would never be cut."""
    done = subprocess.run([sys.executable, "-c", THREADS], env=here(), capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("1\n", "")
