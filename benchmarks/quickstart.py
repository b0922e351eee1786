"""The numbers of the README: `make quickstart` on the built-in scenes and, where they are at hand, on two real sets.

python -m benchmarks.quickstart --samples PATH     # PATH holds `ucm` and `eurosat_rgb`

Writes benchmarks/results/quickstart: per set the Result files without their per-item details, and facts.json.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from benchmarks import measure
from evaluation.result import Result


@dataclass(frozen=True)
class Options:
    samples: Path
    """folder that holds the image sets `ucm` and `eurosat_rgb`"""
    out: Path = Path(__file__).parent / "results" / "quickstart"
    """folder of the result files"""


def main(options: Options) -> None:
    seconds, code = {}, ""
    for name in ("scenes", "ucm", "eurosat_rgb"):
        with tempfile.TemporaryDirectory() as folder:
            data = [] if name == "scenes" else ["--data", str(options.samples / name)]
            started = time.perf_counter()
            subprocess.run([sys.executable, "-m", "recipes.cli", "run", "quickstart", "--out", folder, *data], check=True)
            seconds[name] = time.perf_counter() - started
            for path in (Path(folder) / "results").glob("*.json"):
                result = Result.load(path)
                code = result.code
                replace(result, details={}).save(options.out / name / path.name)
    about = measure.machine()
    facts = {"machine": f"{about['cores']} cores of {about['cpu']}", "code": code, "seconds": seconds}
    (options.out / "facts.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main(tyro.cli(Options))
