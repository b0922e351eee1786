#!/usr/bin/env bash
# Every check that needs a GPU, under nine minutes on one H200:
#
#     bash benchmarks/gpu.sh            # results in $OUT, or benchmarks/results
#     bash benchmarks/gpu.sh --smoke    # the same code with tiny sizes, on any machine
#
# Needs torch, torchvision, accelerate, safetensors, pyarrow, rich, timm, jaxtyping and what benchmarks/gpu_requirements.txt names. For a
# machine without a package index, fetch wheels where there is one and unpack them there:
#
#     pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
#         -d wheels -c constraints.txt -r benchmarks/gpu_requirements.txt
#     pip install --no-index --no-deps --target site wheels/*.whl && export PYTHONPATH=site
set -u
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" TOKENIZERS_PARALLELISM=false
mkdir -p "${OUT:-benchmarks/results}"

"$python" - <<'CHECK' || exit 1
import importlib.util, sys
names = "torch torchvision open_clip open_clip_train safetensors accelerate jaxtyping pydantic simplejpeg pyarrow rich tyro ftfy timm".split()
missing = [name for name in names if importlib.util.find_spec(name) is None]
sys.exit(f"missing: {', '.join(missing)}; see the head of benchmarks/gpu.sh" if missing else 0)
CHECK

# A check that fails or runs out of time does not keep the next from running; each writes what it has as it goes.
status=0
timeout 60 "$python" -m benchmarks.gpu_loss "$@" || status=1
timeout 345 "$python" -m benchmarks.gpu_train "$@" || status=1
timeout 130 "$python" -m benchmarks.gpu_memory "$@" || status=1
exit $status
