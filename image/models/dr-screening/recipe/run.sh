#!/bin/sh
# Makes the bundle from the data, in order. Each step skips what it has already done; stop and start as you like.
#   run.sh DATA OTHER_CAMERA WORK KEY
# DATA: folder with labels.csv and images.zip. OTHER_CAMERA: the CC0 photograph retina.jpg (scikit-image 0.16.2 wheel).
# WORK: caches, checkpoints, weights (about 0.5 GB). KEY: ed25519 private key, PEM, outside the repository.
set -eu
data=$1 other=$2 work=$3 key=$4
here=$(dirname "$0")
python3 "$here/train.py" --data "$data" --work "$work"
python3 "$here/quality.py" --data "$data" --other-camera "$other" --work "$work"
python3 "$here/export.py" --data "$data" --other-camera "$other" --work "$work"
python3 "$here/sign.py" --key "$key" --bundle "$here/../bundle"
