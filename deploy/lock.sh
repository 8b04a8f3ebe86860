#!/usr/bin/env bash
# Compile requirements.in and requirements-dev.in into fully pinned lock files for Python 3.11 and 3.12.
# Pins that still fit are kept; UPGRADE=1 takes the newest of everything that requirements.in leaves open.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

compile() {
    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --no-emit-index-url --no-header \
        ${UPGRADE:+--upgrade} "$@"
}

# torch's default Linux build drags these in, its CPU build does not (deploy/setup.sh chooses): they are never locked.
skip=$(compile --no-annotate requirements.in |
    sed -nE 's/^((nvidia|cuda)-[a-z0-9-]+|triton)==.*/--no-emit-package \1/p')

# Put a header on a compiled file: what it is made from, and how to make it again.
sign() {
    local file=$1 sources=$2 body
    body=$(cat "$file")
    {
        printf '# Compiled from %s for Python 3.11 and 3.12 by: make lock\n' "$sources"
        printf '# Left out on purpose: nvidia-*, cuda-* and triton, which only the CUDA build of torch needs.\n'
        printf '%s\n' "$body"
    } >"$file.new"
    mv "$file.new" "$file"
}

# shellcheck disable=SC2086  # $skip is a list of options
compile $skip requirements.in -o requirements.txt
sign requirements.txt requirements.in
# shellcheck disable=SC2086
compile $skip -c requirements.txt requirements-dev.in -o requirements-dev.txt
sign requirements-dev.txt 'requirements-dev.in, within requirements.txt,'
