import sys

import pytest

from benchmarks.measure import measure_command


def test_a_command_is_measured_with_its_children():
    child = "import time; block = bytearray(60 << 20); time.sleep(0.5)"
    code = f"import subprocess, sys; block = bytearray(40 << 20); subprocess.run([sys.executable, '-c', {child!r}])"
    measured = measure_command([sys.executable, "-c", code])
    assert measured["seconds"] > 0.5
    assert 100 < measured["peak_pss_mib"] < 200  # 40 and 60 of the blocks, and two Pythons
    assert 0 < measured["cpu_seconds"] < 30


def test_a_command_that_fails_says_what_it_wrote():
    with pytest.raises(RuntimeError, match=r"(?s)status 3.*no such list"):
        measure_command([sys.executable, "-c", "import sys; print('no such list'); sys.exit(3)"])


def test_the_cpu_time_of_an_orphan_counts():
    python = "import subprocess, sys, time\n"
    orphan = python + "while time.process_time() < 0.6: pass"
    parent = python + f"subprocess.Popen([sys.executable, '-c', {orphan!r}])"
    leader = python + f"subprocess.run([sys.executable, '-c', {parent!r}]); time.sleep(3)"
    assert measure_command([sys.executable, "-c", leader])["cpu_seconds"] > 0.6
