#!/bin/sh
# Makes the bundle from the data, in order. Each step skips what it has already done; stop and start as you like.
#   run.sh LUNG FIELDS RETINA THYROID BREAST WHEEL WORK KEY
# LUNG: LC25000 folder (labels.csv, images.zip). FIELDS: DSB2018 tissue folder. RETINA, THYROID, BREAST: archives of
# fundus photographs and ultrasound, for the gate alone. WHEEL: scikit-image 0.16.2, for the gate alone.
# WORK: caches, checkpoints, weights (about 0.4 GB). KEY: ed25519 private key, PEM, outside the repository.
set -eu
lung=$1 fields=$2 retina=$3 thyroid=$4 breast=$5 wheel=$6 work=$7 key=$8
here=$(dirname "$0")
others="--retina $retina --thyroid $thyroid --breast $breast --wheel $wheel"
python3 "$here/tissue.py" --lung "$lung" --work "$work"
python3 "$here/heads.py" --lung "$lung" --work "$work"
python3 "$here/stain_study.py" --lung "$lung" --work "$work"
python3 "$here/gate.py" --lung "$lung" --fields "$fields" $others --work "$work"
python3 "$here/nuclei.py" --data "$fields" --work "$work"
python3 "$here/export.py" --lung "$lung" --fields "$fields" $others --work "$work"
python3 "$here/../../common/sign.py" --key "$key" --bundle "$here/../bundle"
