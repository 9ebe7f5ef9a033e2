#!/bin/sh
# Installs what the tests need beside a Rust toolchain: Debian packages where something is
# missing, Python packages in .venv, Node packages in tests/peers/node. Safe to run again.
set -eu
cd "$(dirname "$0")/.."

need() { # package, then a command that succeeds when it is there
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}

missing=
need build-essential sh -c 'cc --version && c++ --version'
need curl curl --version
need python3 python3 --version
need python3-venv python3 -c 'import ensurepip, venv'
need nodejs node --version
need npm npm --version
need tinyproxy-bin sh -c 'command -v tinyproxy'
need microsocks sh -c 'command -v microsocks'
need chromium chromium --version
need libnss-wrapper sh -c 'ls /usr/lib/*/libnss_wrapper.so'
if [ -n "$missing" ]; then
    echo "installing:$missing"
    sudo=
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    if ! command -v apt-get >/dev/null; then
        echo "please install these packages with your system's package manager:$missing" >&2
        exit 1
    fi
    $sudo apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing
fi

[ -x .venv/bin/python ] || python3 -m venv .venv
stamp=.venv/requirements.stamp
wanted=$(cat tests/requirements.txt tests/peers/python/requirements.txt)
if [ "$(cat $stamp 2>/dev/null)" != "$wanted" ]; then
    # urllib3-future keeps its own name then (tests/peers/README.md).
    URLLIB3_NO_OVERRIDE=1 .venv/bin/python -m pip install --quiet --disable-pip-version-check \
        -r tests/requirements.txt -r tests/peers/python/requirements.txt
    printf '%s\n' "$wanted" >$stamp
fi

if [ ! -e tests/peers/node/node_modules/.package-lock.json ] ||
    [ tests/peers/node/package-lock.json -nt tests/peers/node/node_modules/.package-lock.json ]; then
    npm ci --silent --no-audit --no-fund --prefix tests/peers/node
fi
