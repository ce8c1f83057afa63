#!/usr/bin/env bash
# Resolves the locks: one an image, all constrained by dev.lock so that tests run what images hold.
# No index lines and no header: a lock names packages and hashes, never an address.
set -euo pipefail
cd "$(dirname "$0")/.."
compile() { "$1" pip compile -q --no-emit-index-url --no-header --generate-hashes -p 3.11 "${@:2}"; }
uv=$1
compile "$uv" --override requirements/overrides.txt pyproject.toml requirements/cpu.in \
  requirements/build.in --extra operator --extra jobs --extra cli --group dev -o requirements/dev.lock
compile "$uv" requirements/build.in -c requirements/dev.lock -o requirements/build.lock
compile "$uv" pyproject.toml --extra operator -c requirements/dev.lock -o requirements/operator.lock
compile "$uv" pyproject.toml --extra stages -c requirements/dev.lock -o requirements/jobs.lock
compile "$uv" --override requirements/overrides.txt pyproject.toml requirements/cpu.in --extra jobs \
  -c requirements/dev.lock -o requirements/cpu.lock
