#!/bin/sh
# Makes the bundle from the data, in order. Each step skips what it has already done; stop and start as you like.
#   run.sh DATA OTHERS WORK KEY
# DATA: folder with labels.csv and images.zip. OTHERS: folder with the folders of the other data sets (README.md names them).
# WORK: checkpoints, weights, INT8 networks (about 0.2 GB). KEY: ed25519 private key, PEM, outside the repository.
set -eu
data=$1 others=$2 work=$3 key=$4
here=$(dirname "$0")
python3 "$here/train.py" --data "$data" --work "$work"
python3 "$here/heads.py" --data "$data" --others "$others" --work "$work"
python3 "$here/export.py" --data "$data" --others "$others" --work "$work"
python3 "$here/../../common/sign.py" --key "$key" --bundle "$here/../bundle"
