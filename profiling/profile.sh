#!/usr/bin/env bash
# The example server with a fixed number of requests, in each mode of Shockwave and on the system allocator as the
# control; or one run of each under a profiler. `profile.sh --help` tells the options and the columns.
set -euo pipefail
# Or a failure within $(..) would not end it.
shopt -s inherit_errexit

REQUESTS=20000
ROUNDS=5
MODES=standard,slab,arena
TOOL=
OUT=

usage() {
    cat <<'TEXT'
profile.sh [--requests N] [--rounds N] [--modes LIST] [--tool TOOL] [--out DIR]

Without --tool: runs the example server in rounds. In each round the control (the system allocator) and every mode
serve the same requests once, in a process each, in an order that rotates. Columns, each the median of the rounds:
  us/req       processor time of the server's thread per request, in microseconds
  ratio        that time over the control's of the same round; below 1 is less
  from, to     smallest and largest ratio of the rounds: if 1 lies between them, the rounds show no difference
  backing/req  calls to the backing allocator per request; the control has none, it is what it would be called
  minor/1000   page faults without reading, per 1000 requests
  major        page faults with reading, in all
  peak MiB     most resident memory of the process, server and client

With --tool: runs the control and every mode once under the tool, prints a summary, keeps the tool's files in DIR.
  callgrind    instructions per request (valgrind); the client's are in it, the same for all
  heaptrack    calls to malloc and their peak: what reaches the system heap
  perf         samples by function
  dhat         as `profiling heap`, in the modes only; 4 s each, whatever --requests says

  --requests N  requests per run [20000; under a tool 1000, perf 20000]; a fifth as many before that warm up
  --rounds N    rounds [5]
  --modes LIST  modes, separated by commas [standard,slab,arena]
  --out DIR     where the tools' files go [target/profile]
TEXT
}

fail() {
    echo "profile.sh: $*" >&2
    exit 2
}

# number NAME TEXT MAX
number() {
    if ! [[ $2 =~ ^[1-9][0-9]{0,8}$ ]] || (($2 > $3)); then
        fail "$1 $2: accepted is a number from 1 to $3"
    fi
}

# needs PROGRAM PACKAGE
needs() {
    command -v "$1" >/dev/null || fail "--tool $TOOL needs $1, which is not installed (Debian: apt-get install $2)"
}

requests_named=
while (($#)); do
    case $1 in
        --help | -h)
            usage
            exit
            ;;
        --requests | --rounds | --modes | --tool | --out)
            (($# > 1)) || fail "$1 needs a value; see --help"
            case $1 in
                --requests) REQUESTS=$2 requests_named=1 ;;
                --rounds) ROUNDS=$2 ;;
                --modes) MODES=$2 ;;
                --tool) TOOL=$2 ;;
                --out) OUT=$2 ;;
            esac
            shift 2
            ;;
        *) fail "$1 is not known; accepted: --requests --rounds --modes --tool --out --help" ;;
    esac
done
number --requests "$REQUESTS" 10000000
number --rounds "$ROUNDS" 1000
IFS=, read -r -a modes <<<"$MODES"
((${#modes[@]})) || fail "--modes is empty; accepted: standard, slab, arena"
for mode in "${modes[@]}"; do
    case $mode in
        standard | slab | arena) ;;
        *) fail "--modes $mode: accepted: standard, slab, arena" ;;
    esac
done
# Before anything is built.
case $TOOL in
    '' | dhat) ;;
    callgrind) needs valgrind valgrind && needs callgrind_annotate valgrind ;;
    heaptrack) needs heaptrack heaptrack && needs heaptrack_print heaptrack ;;
    perf) needs perf linux-perf ;;
    *) fail "--tool $TOOL: accepted: callgrind, heaptrack, perf, dhat" ;;
esac
command -v cargo >/dev/null || fail "cargo is not installed; see https://rustup.rs"
if [[ -n $TOOL && $TOOL != perf && -z $requests_named ]]; then
    REQUESTS=1000
fi

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname -- "$here")
OUT=${OUT:-$root/target/profile}
# They would set up one side and not the other.
unset SHOCKWAVE_SLAB_SIZE SHOCKWAVE_TRACE SHOCKWAVE_MODE

# build BINARY: prints where cargo put it.
build() {
    cargo build --quiet --manifest-path "$here/Cargo.toml" --profile heap --no-default-features --features serve \
        --bin "$1" --message-format=json-render-diagnostics | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p'
}

# run VARIANT COMMAND...: the command and the server of the variant, which is the control or a mode, as its arguments.
run() {
    local variant=$1 program=$shockwave
    shift
    # The control has the scopes of the handlers as well, which in this mode do nothing.
    [[ $variant == control ]] && variant=standard program=$system
    SHOCKWAVE_MODE=$variant "$@" "$program" "$REQUESTS"
}

# The rounds as lines: ROUND VARIANT and what the server prints.
measure() {
    local round place variant line count=${#variants[@]}
    for ((round = 0; round < ROUNDS; round++)); do
        for ((place = 0; place < count; place++)); do
            variant=${variants[(round + place) % count]}
            # Not within echo, where a failure would not count.
            line=$(run "$variant") || fail "the server fails: $variant"
            echo "$round $variant $line"
        done
    done
}

report() {
    awk -v rounds="$ROUNDS" -v list="${variants[*]}" '
        function median(values, count,    i, j, held) {
            for (i = 2; i <= count; i++) {
                held = values[i]
                for (j = i - 1; j >= 1 && values[j] > held; j--) values[j + 1] = values[j]
                values[j + 1] = held
            }
            return (values[int((count + 1) / 2)] + values[int(count / 2) + 1]) / 2
        }
        function column(name, variant,    round, values) {
            for (round = 0; round < rounds; round++) values[round + 1] = table[name, variant, round]
            return median(values, rounds)
        }
        {
            table["time", $2, $1] = $4 / $3 / 1000
            table["backing", $2, $1] = $5 / $3
            table["minor", $2, $1] = $6 * 1000 / $3
            table["major", $2, $1] = $7
            table["peak", $2, $1] = $8 / 1024
        }
        END {
            count = split(list, variants, " ")
            format = "%-9s %8s %7s %6s %6s %12s %11s %6s %9s\n"
            printf format, "", "us/req", "ratio", "from", "to", "backing/req", "minor/1000", "major", "peak MiB"
            for (v = 1; v <= count; v++) {
                variant = variants[v]
                for (round = 0; round < rounds; round++) {
                    ratio = table["time", variant, round] / table["time", "control", round]
                    table["ratio", variant, round] = ratio
                    if (round == 0 || ratio < from) from = ratio
                    if (round == 0 || ratio > to) to = ratio
                }
                backing = variant == "control" ? "-" : sprintf("%.2f", column("backing", variant))
                printf format, variant, sprintf("%.2f", column("time", variant)), \
                    sprintf("%.3f", column("ratio", variant)), sprintf("%.3f", from), sprintf("%.3f", to), backing, \
                    sprintf("%.1f", column("minor", variant)), sprintf("%d", column("major", variant)), \
                    sprintf("%.1f", column("peak", variant))
            }
        }'
}

# instructions VARIANT FILE: the sum that callgrind counted.
instructions() {
    run "$1" valgrind --quiet --tool=callgrind --callgrind-out-file="$2" >/dev/null
    sed -n 's/^\(summary\|totals\): *\([0-9]*\).*/\2/p' "$2" | head -n 1
}

callgrind() {
    local variant file all half full=$REQUESTS
    for variant in "${variants[@]}"; do
        file=$OUT/callgrind.$variant
        # What the process does once is in both runs. A run serves a fifth more for its warm-up.
        REQUESTS=$(((full + 1) / 2))
        half=$(instructions "$variant" "$file")
        REQUESTS=$full
        all=$(instructions "$variant" "$file")
        awk -v variant="$variant" -v all="$all" -v half="$half" -v requests="$full" -v file="$file" 'BEGIN {
            printf "%-9s %9.0f instructions per request   %s\n", variant, (all - half) / (requests / 2 * 1.2), file
        }'
    done
    echo "by function: callgrind_annotate FILE, or kcachegrind FILE"
}

heaptrack_all() {
    local variant file files
    for variant in "${variants[@]}"; do
        file=$OUT/heaptrack.$variant
        rm -f -- "$file".*
        run "$variant" heaptrack --output "$file" >"$OUT/log" 2>&1 || fail "heaptrack: $(tail -n 1 "$OUT/log")"
        # Which suffix depends on what heaptrack was built with.
        files=("$file".*)
        file=${files[0]}
        heaptrack_print --file "$file" --print-peaks 0 --print-allocators 0 --print-temporary 0 2>/dev/null \
            | awk -v variant="$variant" -v file="$file" -F': ' '
                /^calls to allocation functions/ { split($2, calls, " ") }
                /^peak heap memory/ { peak = $2 }
                END { printf "%-9s %9s calls to malloc, peak %-8s %s\n", variant, calls[1], peak, file }'
    done
    echo "by call site: heaptrack_print --file FILE, or heaptrack_gui FILE"
}

perf_all() {
    local variant file
    for variant in "${variants[@]}"; do
        file=$OUT/perf.$variant
        # The clock of the processor: hardware counters are missing on many virtual machines.
        run "$variant" perf record --quiet --event cpu-clock --output "$file" >/dev/null
        echo "$variant: $file"
        perf report --input "$file" --stdio --no-children --percent-limit 2 2>/dev/null | grep -v '^#' | sed '/^ *$/d'
    done
    echo "in the terminal: perf report --input FILE"
}

if [[ $TOOL == dhat ]]; then
    mkdir -p -- "$OUT"
    cargo build --quiet --release --manifest-path "$here/Cargo.toml" --bin profiling
    cd -- "$OUT"
    if ((${#modes[@]} == 3)); then
        exec cargo run --quiet --release --manifest-path "$here/Cargo.toml" -- heap
    fi
    for mode in "${modes[@]}"; do
        cargo run --quiet --release --manifest-path "$here/Cargo.toml" -- heap --mode "$mode"
    done
    exit
fi

variants=(control "${modes[@]}")
system=$(build serve-system)
shockwave=$(build serve-shockwave)
[[ -n $TOOL ]] && mkdir -p -- "$OUT"
case $TOOL in
    callgrind) echo "$REQUESTS requests" && callgrind ;;
    heaptrack) echo "$REQUESTS requests" && heaptrack_all ;;
    perf) echo "$REQUESTS requests" && perf_all ;;
    *)
        echo "$REQUESTS requests per run, $ROUNDS rounds"
        rows=$(measure)
        report <<<"$rows"
        ;;
esac
