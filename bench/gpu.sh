#!/bin/sh
# Training on one GPU beside the peers, in one command:   bench/gpu.sh PYTHON_OF_THE_PEERS
# Needs a CUDA build of PyTorch in both environments; the peers' scripts are told not to keep to the processor.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$here/.venv/bin/python}
"$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' || { echo "no GPU that PyTorch can use" >&2; exit 1; }
peers=$(mktemp -d)
trap 'rm -rf "$peers"' EXIT
data=${MACHIKOBA_DATA:-$here/../shared/data}
mkdir "$peers/peers"
ln -s "$(cd "$data" && pwd)" "$peers/data"
for script in "${MACHIKOBA_PEERS:-$here/../shared/peers}"/*.py; do
  sed 's/use_cpu=True/use_cpu=False/; s/bf16=False/bf16=True/' "$script" > "$peers/peers/$(basename "$script")"
done
MACHIKOBA_PEERS="$peers/peers" "$python" "$here/bench/tuner.py" --peers "$1" --suffix gpu gemma e5 sft
