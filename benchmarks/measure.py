"""How every benchmark here measures: peer and ours in turn, in fresh processes, in an order that alternates.

    rounds = alternate({"peer": run_peer, "ours": run_ours}, rounds=7)
    ratio = median_and_range([r["ours"]["images_per_s"] / r["peer"]["images_per_s"] for r in rounds])

The ratio is taken within a round: what else the machine does then falls on both.
"""

import ctypes
import json
import os
import platform
import resource
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

Measured = dict[str, Any]
_MARK = "MEASURED "
_ROOT = Path(__file__).parents[1]


def alternate(contenders: Mapping[str, Callable[[], Measured]], rounds: int) -> list[dict[str, Measured]]:
    """What each contender measured, by round. Every other round goes through them backwards."""
    found = []
    for number in range(rounds):
        names = list(contenders) if number % 2 == 0 else list(reversed(contenders))
        measured = {name: contenders[name]() for name in names}
        print(
            f"round {number + 1} of {rounds}: " + ", ".join(f"{name} {_short(measured[name])}" for name in contenders), flush=True
        )
        found.append(measured)
    return found


def _short(measured: Measured) -> str:
    return " ".join(f"{name}={value:.4g}" for name, value in measured.items() if isinstance(value, float))


def median_and_range(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def measure_in_fresh_process(script: str, arguments: Sequence[str], *, path_first: Path | None = None) -> Measured:
    """Run `script` with the arguments and return what it gave to `report`. It can import `benchmarks` and the packages of this folder.

    `path_first` comes before the installed packages: how a peer that needs an older library gets it.
    """
    environment = dict(os.environ)
    folders = [*([str(path_first)] if path_first else []), str(_ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(folders).strip(os.pathsep)
    done = subprocess.run([sys.executable, script, *arguments], env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(_MARK)]
    if done.returncode or not lines:
        raise RuntimeError(f"{script} {' '.join(arguments)} failed with status {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return json.loads(lines[-1].removeprefix(_MARK))


def measure_command(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Measured:
    """Wall clock from the start of the process to its end, CPU time, and the peak memory of it and all its children together.

    Memory is looked at ten times a second, a page that processes share counted once in all (PSS). The CPU time holds that of processes
    which outlive the one that started them. Raises RuntimeError, with what it wrote, for a status other than 0.
    """
    _adopt_orphans()
    peak_kib = 0
    cpu_start, start = cpu_seconds(), time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(
            command, env=dict(environment or os.environ), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while process.poll() is None:
                peak_kib = max(peak_kib, sum(map(_pss_kib, session_processes(process.pid))))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
        finally:
            seconds = time.perf_counter() - start
            kill_session(process)  # Ctrl-C does not reach it
            _wait_for_orphans()
        if process.returncode:
            output.seek(0)
            raise RuntimeError(f"{shlex.join(command)} failed with status {process.returncode}:\n{output.read()[-8000:]}")
    return {"seconds": seconds, "cpu_seconds": cpu_seconds() - cpu_start, "peak_pss_mib": peak_kib / 1024}


def _adopt_orphans() -> None:
    """A process whose parent has ended becomes a child of this one, so that its CPU time can be asked for (Linux, prctl(2))."""
    set_child_subreaper = 36
    ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)


def _wait_for_orphans() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def kill_session(leader: subprocess.Popen[Any]) -> None:
    """SIGKILL to the session that `leader` began, until none of it is left."""
    while processes := session_processes(leader.pid):
        for each in processes:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        time.sleep(0.02)
    leader.wait()


def session_processes(leader: int) -> list[int]:
    """The processes of the session that `leader` began and that have not ended, itself among them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state != "Z":
                found.append(int(path.parent.name))
    return found


def _pss_kib(process: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def report(measured: Measured) -> None:
    """Called once by the measured process, at its end: hands the numbers and its peak memory to `measure_in_fresh_process`."""
    print(_MARK + json.dumps(measured | {"peak_rss_mib": peak_rss_mib()}), flush=True)


def peak_rss_mib() -> dict[str, float]:
    """Of this process, and of the largest of its children that have ended; pages that both share count twice."""
    in_kib = {"process": resource.RUSAGE_SELF, "largest_child": resource.RUSAGE_CHILDREN}
    return {name: resource.getrusage(who).ru_maxrss / 1024 for name, who in in_kib.items()}


def forget_peak_rss() -> None:
    """`peak_rss_mib` of this process counts from now on (Linux, proc_pid_clear_refs(5)): what making the inputs took is left out."""
    Path("/proc/self/clear_refs").write_text("5")


def cpu_seconds() -> float:
    """Of this process and of its children that have ended. On a machine that others use too, it wavers less than the clock."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def machine() -> dict[str, Any]:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": model, "cores": os.cpu_count(), "memory_gib": round(memory / 2**30, 1), "python": platform.python_version()}


def versions(*packages: str) -> dict[str, str]:
    return {package: version(package) for package in packages}


def write_result(path: Path, benchmark: str, result: Mapping[str, Any]) -> None:
    record = {"benchmark": benchmark, "measured": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), **result}
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".tmp")
    aside.write_text(json.dumps(record, indent=1) + "\n")
    aside.replace(path)
    print(f"written: {path}")
