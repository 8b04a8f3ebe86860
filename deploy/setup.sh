#!/usr/bin/env bash
# Build .venv in this checkout from the project's own lock files. A second call has nothing to do and returns at once.
#
#   PYTHON=/path/to/python3.12   which interpreter to use (default: the first of python3.12, python3.11, python3 that fits)
#   TORCH_INDEX_URL=https://...  where torch comes from (default: decided below)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv=.venv
stamp=$venv/.setup-complete
vectors=$venv/share/akosha/demo-vectors.parquet
pip_version=26.3
uv_version=0.13.8
cpu_index=https://download.pytorch.org/whl/cpu

say() { printf 'setup: %s\n' "$*"; }
fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# The version of an interpreter as 3.11, or nothing where it does not run or cannot make environments.
version_of() { "$1" -c 'import ensurepip, sys, venv; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

find_python() {
    local candidate version seen=
    for candidate in ${PYTHON:-python3.12 python3.11 python3}; do
        version=$(version_of "$candidate")
        case $version in
            3.11 | 3.12) printf '%s' "$candidate"; return ;;
            "") seen+=", $candidate: missing, or without its venv module" ;;
            *) seen+=", $candidate: is $version" ;;
        esac
    done
    fail "expected Python 3.11 or 3.12, found none (${seen#, }); install one, or set PYTHON=/path/to/python3.12"
}

# What the environment was made from: the files, the interpreter, and where it stands (its scripts name their own path).
wanted() {
    "$venv/bin/python" -I -c '
import hashlib, pathlib, sys
print(sys.version.split()[0], pathlib.Path(".venv").resolve())
for name in ("requirements.txt", "requirements-dev.txt", "pyproject.toml", "deploy/setup.sh"):
    print(hashlib.sha256(pathlib.Path(name).read_bytes()).hexdigest(), name)
'
}

complete() {
    [ -f "$stamp" ] || return 1
    if [ -n "${PYTHON:-}" ] && [ "$(version_of "$PYTHON")" != "$(version_of "$venv/bin/python")" ]; then return 1; fi
    [ "$(cat "$stamp")" = "$(wanted 2>/dev/null)" ]
}

vectors_made() { [ -s "$vectors" ]; }

# Whether what is there can be brought up to date in place: an environment without its stamp was left half-made, one that
# moved names its old path in every script, and another Python needs other packages.
mendable() {
    local version
    [ -f "$stamp" ] || return 1
    version=$(version_of "$venv/bin/python")
    [ -n "$version" ] && [ "$version" = "$(version_of "${PYTHON:-$venv/bin/python}")" ] &&
        [ "$(sed -n '1s/^[^ ]* //p' "$stamp")" = "$(cd "$venv" && pwd -P)" ]
}

prepare_venv() {
    local python entry
    if ! mendable; then
        python=$(find_python)
        for entry in "$venv"/* "$venv"/.[!.]*; do
            # share/ holds the demo's vectors, which are minutes of work.
            [ "$entry" = "$venv/share" ] || rm -rf "$entry"
        done
        say "making $venv with Python $(version_of "$python")"
        "$python" -m venv "$venv"
    fi
    rm -f "$stamp"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "pip==$pip_version" "uv==$uv_version"
}

# torch goes first and alone. On plain Linux its default build asks for gigabytes of CUDA packages that Akosha never uses:
# where that would happen, take the CPU build instead. What is installed here satisfies the lock.
install_torch() {
    local torch pip="$venv/bin/python -m pip" report
    torch=$(sed -n 's/^\(torch==[^ ;]*\).*/\1/p' requirements.txt)
    if "$venv/bin/python" -c "import importlib.metadata as m, sys; sys.exit(m.version('torch').split('+')[0] != '${torch#*==}')" \
        2>/dev/null; then return; fi
    if [ -n "${TORCH_INDEX_URL:-}" ]; then
        say "installing $torch from $TORCH_INDEX_URL"
        $pip install --quiet --no-deps --index-url "$TORCH_INDEX_URL" "$torch"
        return
    fi
    report=$(mktemp)
    $pip install --dry-run --quiet --report "$report" "$torch"
    if ! grep -Eq '"name": "(nvidia|cuda)[-_]' "$report"; then
        rm -f "$report"
        say "installing $torch"
        $pip install --quiet --no-deps "$torch"
        return
    fi
    rm -f "$report"
    say "installing $torch without CUDA from $cpu_index"
    if ! $pip install --quiet --retries 2 --no-deps --index-url "$cpu_index" "$torch"; then
        say "that index does not answer: installing $torch with its CUDA packages (several gigabytes, unused)"
        say "to avoid them set TORCH_INDEX_URL to an index of CPU builds that you can reach"
        $pip install --quiet "$torch"
    fi
}

install_packages() {
    prepare_venv
    install_torch
    say "installing the locked packages"
    # uv does not read pip's environment; whoever redirected pip meant both.
    if [ -n "${PIP_INDEX_URL:-}" ]; then export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$PIP_INDEX_URL}"; fi
    "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" -r requirements-dev.txt
    # setuptools is locked: no second copy is fetched to build the project.
    "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" --no-deps --no-build-isolation -e .
    wanted >"$stamp.new"
    mv "$stamp.new" "$stamp"
    say "packages are in place"
}

make_vectors() {
    say "making the demo's vectors (once, minutes)"
    "$venv/bin/akosha" demo-vectors
}

if complete && vectors_made; then exit 0; fi

# Two setups of one checkout take turns. The lock belongs to the open file, so it ends with this process, however that ends.
locker=$(find_python)
mkdir -p "$venv"
exec 9>.setup.lock
lock='import fcntl, sys; fcntl.flock(9, fcntl.LOCK_EX | (fcntl.LOCK_NB if sys.argv[1:] else 0))'
if ! "$locker" -c "$lock" now 2>/dev/null; then
    say "another setup is running in this checkout: waiting for it"
    "$locker" -c "$lock"
fi

if ! complete; then install_packages; fi
if ! vectors_made; then make_vectors; fi
