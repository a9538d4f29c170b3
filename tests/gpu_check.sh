#!/usr/bin/env bash
# Fills the README's table of rates on a GPU, in at most 8 minutes, and runs the exactness tests on the GPU.
#
#     bash tests/gpu_check.sh [--tiny] [FOLDER]
#
# FOLDER (default: $OUT, or results/gpu) gets gpu.md, the table in Markdown, gpu.json, all numbers, and what each part
# printed. Each part has its own limit of time, and a part that fails leaves the others alone. What a part has measured
# before its time is over is kept: the most wanted numbers come first. The exit code is 1 if a part failed or was
# stopped. What an earlier run has left of any part in FOLDER is removed first. --tiny uses the sizes of the tests and runs anywhere. PYTHON names the interpreter (default: python).
set -u
cd "$(dirname "$0")/.."

tiny=""
if [ "${1:-}" = "--tiny" ]; then
    tiny="--tiny"
    shift
fi
out="${1:-${OUT:-results/gpu}}"
python="${PYTHON:-python}"
mkdir -p "$out"
failed=""
# A file of an earlier run, perhaps on another machine, must not come onto the page of this one.
for name in maze cartpole others precision kernel exactness gpu; do
    rm -f "$out/$name.json" "$out/$name.txt" "$out/$name.md"
done

# part NAME SECONDS COMMAND...: runs a part, and keeps what it prints in FOLDER/NAME.txt.
part() {
    local name="$1" seconds="$2"
    shift 2
    echo "== $name (at most $seconds s)"
    # SIGINT, after which pytest says how many tests have passed.
    timeout -s INT -k 5 "$seconds" "$@" >"$out/$name.txt" 2>&1
    local code=$?
    if [ "$code" -eq 0 ]; then
        tail -n 3 "$out/$name.txt"
    else
        case "$code" in
            124 | 137) echo "$name was stopped after $seconds s" ;;
            *) echo "$name failed with exit code $code" ;;
        esac
        tail -n 15 "$out/$name.txt"
        failed="$failed $name"
    fi
}

measure() {
    local name="$1" seconds="$2"
    shift 2
    part "$name" "$seconds" "$python" -m experiments.throughput $tiny --seeds 0 --problems --no-cache \
        --output-dir "$out/runs" --json "$out/$name.json" "$@"
}

if [ -n "$tiny" ]; then
    measure maze 300 --workloads maze
    part precision 300 "$python" -m experiments.precision --tiny --output-dir "$out/runs"
    part kernel 300 "$python" -m experiments.throughput.one_kernel --tiny
    part exactness 300 "$python" -m pytest -n0 -p no:cacheprovider tests/pgjax/test_returns.py
else
    # All limits, 5 s more for each part that does not stop at once, and the page stay within 480 s.
    short="--repetitions 3 --measure-seconds 0.3"
    # Every program is compiled anew for every batch size, which is expected to take most of the time on a GPU.
    measure cartpole 170 --workloads CartPole-v1 --batches 65536 262144 1048576 4096 \
        --programs REINFORCE "REINFORCE with a value network" rollout $short
    # The limits of the machine are those that the first part has measured.
    known=()
    [ -f "$out/cartpole.json" ] && known=(--limits "$out/cartpole.json")
    measure others 100 --workloads Breakout-MinAtar tokens --lanes 32768 4096 --answers 4096 512 \
        --programs "actor-critic (GAE)" RLOO rollout $short \
        ${known[@]+"${known[@]}"}
    part kernel 60 "$python" -m experiments.throughput.one_kernel
    # The units of the GPU beside the emulation: what TF32 and bfloat16 cost the gradient.
    part precision 50 "$python" -m experiments.precision --problems random --policies 5 --batches 64 16384 --most 2 \
        --practice 0 --seeds 0 --no-cache --output-dir "$out/runs"
    part exactness 50 "$python" -m pytest -n0 -p no:cacheprovider tests/pgjax/test_on_accelerators.py \
        tests/pgjax/exact/test_exact.py tests/pgjax/exact/test_tabular.py tests/pgjax/test_rows.py
fi

timeout -k 5 15 "$python" -m experiments.throughput.gpu_page "$out" || failed="$failed page"
if [ -n "$failed" ]; then
    echo "failed:$failed"
    exit 1
fi
