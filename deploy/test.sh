#!/usr/bin/env bash
# Everything that must hold before a change is accepted, cheapest first; the first failure ends it.
#
#   deploy/test.sh [--lint-only] [arguments for pytest]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PATH="$PWD/.venv/bin:$PATH"

step() {
    local name=$1 started=$SECONDS
    shift
    printf '== %s: %s\n' "$name" "$*"
    if ! "$@"; then
        printf '== %s failed\n' "$name" >&2
        exit 1
    fi
    printf '== %s: ok, %d s\n' "$name" $((SECONDS - started))
}

lint_only=
if [ "${1:-}" = --lint-only ]; then lint_only=yes; shift; fi

step lint ruff check .
step format ruff format --check .
step types mypy
step contracts lint-imports --no-cache --no-logo
if [ -n "$lint_only" ]; then exit 0; fi
step tests pytest --numprocesses auto --dist loadfile "$@"
printf '== all passed in %d s\n' "$SECONDS"
