#!/usr/bin/env bash
# Builds what a release consists of into dist/: wheel, chart, manifests, SBOMs, checksums. Reproducible: the
# time in archives is the commit's, so the same commit gives the same checksums everywhere.
#
#   deploy/release.sh PYTHON HELM [FOLDER]
set -euo pipefail
python=$1 helm=$2
cd "$(dirname "$0")/.."
folder=${3:-dist}
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
rm -rf "$folder"
mkdir -p "$folder"
"$python" -m hatchling build -t wheel -d "$folder" > /dev/null
"$helm" package charts/lora-operator -d "$folder" > /dev/null
"$helm" template lora-operator charts/lora-operator -n lora-system --set crds.keep=false --skip-tests \
  > "$folder/lora-operator.yaml"
"$python" deploy/sbom.py "$folder" > /dev/null
cp crds/loradeployments.yaml "$folder/lora-operator.crds.yaml"
(cd "$folder" && sha256sum -- * > SHA256SUMS)
cat "$folder/SHA256SUMS"
