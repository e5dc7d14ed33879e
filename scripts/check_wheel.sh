#!/usr/bin/env bash
# Build the source distribution and from it the wheel, install that into an environment of its own,
# and there train, explain and check from an empty folder.
#
# Usage: scripts/check_wheel.sh [PYTHON]   PYTHON has the dependencies; .venv/bin/python if left out
#
# The environment holds the wheel and links to what the wheel declares it needs, nothing else: a
# forgotten dependency or file fails here, in a minute and without a download. FRESH=1 installs the
# dependencies instead (6 GB, several minutes).
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(realpath --no-symlinks "${1:-.venv/bin/python}")
clone=$PWD
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHONPATH
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} WANDB_MODE=offline

echo "building"
"$python" -m venv "$work/build"
"$work/build/bin/pip" install --quiet build
"$work/build/bin/python" -m build --outdir "$work/dist" . >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
wheel=$(ls "$work"/dist/*.whl)
"$python" - "$wheel" <<'PY'
import sys, zipfile
from pathlib import Path

held = {name for name in zipfile.ZipFile(sys.argv[1]).namelist() if ".dist-info/" not in name}
files = {str(p) for p in Path("lightning_cam").rglob("*") if p.is_file() and p.suffix != ".pyc"}
if held != files:
    sys.exit(f"the wheel and the clone differ: {sorted(held ^ files)}")
PY

echo "installing"
"$python" -m venv --without-pip "$work/env"
install=("$python" -m pip --python "$work/env/bin/python" install --quiet)
if [ -n "${FRESH:-}" ]; then
  "${install[@]}" "$wheel"
else
  "${install[@]}" --no-deps --no-index "$wheel"
  "$python" scripts/link_dependencies.py lightning-cam "$work/env"
fi

mkdir "$work/empty"
cd "$work/empty"
bin=$work/env/bin
"$bin/python" - "$work/env" <<'PY'
import sys, lightning_cam

assert lightning_cam.__file__.startswith(sys.argv[1]), lightning_cam.__file__
PY

data=(data.root=drawn data.groups=5 data.clips=2 data.size=64 "data.actions=[blink,expand,move_left]")
small=("${data[@]}" "data.train_groups=[1,2,3]" "data.val_groups=[4]" "data.test_groups=[5]"
  data.batch_size=6 trainer=cpu trainer.max_epochs=1 logger=none)

# The command that a training names as the next one, run as printed.
follow() {
  local next
  next=$(sed -n 's/^next  *//p' "$1")
  echo "  $next"
  eval "$next clips=2" | tail -n 1
}

echo "training, explaining and checking"
"$bin/lightning-cam-train" "${small[@]}" model.hidden=16 name=installed >"$work/train.log"
follow "$work/train.log"
"$bin/lightning-cam-check" data=synthetic "${data[@]}" | tail -n 1

echo "with files of the user"
mkdir -p configs/experiment configs/model
cp "$clone/configs/experiment/example.yaml" configs/experiment/mine.yaml
cat >my_module.py <<'PY'
from torch import nn


class Net(nn.Module):
    explain_layers = ("conv",)

    def __init__(self, num_outputs):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, num_outputs)

    def forward(self, clip):
        return self.head(self.conv(clip).relu().mean((2, 3, 4)))
PY
printf '_target_: my_module.Net\nnum_outputs: null\n' >configs/model/mine.yaml
"$bin/lightning-cam-train" experiment=mine model=mine explain=gradcam "${small[@]}" \
  name=mine >"$work/mine.log"
follow "$work/mine.log"
"$bin/python" -m lightning_cam train experiment=mine "${small[@]}" name=module >"$work/module.log"
follow "$work/module.log"
echo "the wheel is well: $(basename "$wheel"), $(du -h "$wheel" | cut -f1)"
