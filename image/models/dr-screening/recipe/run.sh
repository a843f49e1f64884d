#!/bin/sh
# Makes the bundle from the data, in order. Each step skips what it has already done; stop and start as you like.
#   run.sh DATA_SETS OTHER_CAMERA WORK KEY
# DATA_SETS: folder above the data sets that README.md names. OTHER_CAMERA: the CC0 photograph retina.jpg (scikit-image
# 0.16.2 wheel). WORK: caches, checkpoints, weights (about 0.7 GB). KEY: ed25519 private key, PEM, outside the repository.
set -eu
data=$1 other=$2 work=$3 key=$4
here=$(dirname "$0")
export OMP_NUM_THREADS=1
python3 "$here/features.py" --data "$data/idrid-512" --work "$work"
python3 "$here/train.py" --data "$data/idrid-512" --work "$work"
python3 "$here/gate.py" --data-sets "$data" --work "$work"
python3 "$here/export.py" --data-sets "$data" --other-camera "$other" --work "$work"
python3 "$here/../../common/sign.py" --key "$key" --bundle "$here/../bundle"
for fold in "$work"/validation/fold*; do
  python3 "$here/../../common/sign.py" --key "$key" --bundle "$fold/bundle"
done
