#!/bin/sh
# Runs the fuzz targets, each for FUZZ_SECONDS, two at a time:
#
#     scripts/fuzz.sh [TARGET...]            all of them, or these
#     scripts/fuzz.sh --replay TARGET FILE   one input once more, with its backtrace
#
# Inputs to begin with are fuzz/corpus and the answers that the tests of crates/taps hold. What a run
# finds worth keeping, its log, and what crashed stay under fuzz/target.
set -eu
cd "$(dirname "$0")/../fuzz"
seconds=${FUZZ_SECONDS:-10}
host=$(rustc -vV | sed -n 's/^host: //p')
bin=target/$host/release
out=target/fuzz

build() {
    # Flags of the environment would take the place of those in .cargo/config.toml.
    unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET
    ${CARGO:-cargo} build --quiet --release --locked --target-dir target
}

# Fixtures, behind eight bytes that choose (src/pieces.rs): first this one, then lengths of pieces.
seed() { # choice, targets, names of fixtures
    for target in $2; do
        mkdir -p "$out/$target/seeds"
        for fixture in $3; do
            {
                printf '%s\001\007\100\003\000\230\021' "$1"
                cat "../crates/taps/src/tests/fixtures/$fixture"
            } >"$out/$target/seeds/$fixture"
        done
    done
}

seeds() {
    seed '0' tap_openai chat.json
    seed '1' 'tap_openai strip' 'chat.sse azure.sse compatible.sse'
    seed '1' 'tap_responses strip' responses.sse
    seed '1' tap_anthropic anthropic.sse
    seed '1' tap_dashscope dashscope.sse
    seed '0' tap_gemini 'gemini.json gemini-array.json'
    seed '1' tap_gemini gemini.sse
}

one() { # target
    log=$out/$1/log
    mkdir -p "$out/$1/corpus" "$out/$1/seeds" "$out/$1/crashes"
    set -- "$1" "$out/$1/corpus" "$out/$1/seeds"
    [ ! -d "corpus/$1" ] || set -- "$@" "corpus/$1"
    target=$1
    shift
    # Text has words; in the others it takes many bytes to say anything.
    case $target in
    record | journal | socket | fields) how=-len_control=0 ;;
    *) how=-dict=json.dict ;;
    esac
    status=0
    "$bin/$target" "$how" -max_total_time="$seconds" -max_len=4096 -timeout=10 -rss_limit_mb=1024 \
        -print_final_stats=1 -artifact_prefix="$out/$target/crashes/" "$@" \
        >"$log" 2>&1 || status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    cov=$(sed -n 's/^#[0-9].* cov: \([0-9]*\) .*/\1/p' "$log" | tail -n 1)
    first=$(sed -n 's/^#[0-9].*INITED cov: \([0-9]*\) .*/\1/p' "$log")
    took=$(sed -n 's/^Done .* in \([0-9]*\) second.*/\1/p' "$log")
    printf '%-14s %9s runs  cov %5s (%5s at first)  %4s s\n' \
        "$target" "${runs:-?}" "${cov:-?}" "${first:-?}" "${took:-?}"
    [ "$status" -eq 0 ] && return
    found=$(sed -n 's/.*Test unit written to //p' "$log" | tail -n 1)
    {
        echo "$target failed: fuzz/$log"
        grep -m 1 -A 3 'panicked at\|ERROR: libFuzzer' "$log" | cut -c 1-400 || true
        [ -z "$found" ] || echo "again: scripts/fuzz.sh --replay $target fuzz/$found"
    } >&2
    return 1
}

case ${1:-} in
--one) one "$2" ;;
--replay)
    build
    case $3 in /*) file=$3 ;; *) file=../$3 ;; esac
    RUST_BACKTRACE=1 exec "$bin/$2" "$file"
    ;;
*)
    # shellcheck disable=SC2046 # a list of words
    [ $# -gt 0 ] || set -- $(sed -n 's/^path = "targets\/\(.*\)\.rs"$/\1/p' Cargo.toml)
    build
    seeds
    printf '%s\n' "$@" | xargs -P 2 -n 1 ../scripts/fuzz.sh --one
    ;;
esac
