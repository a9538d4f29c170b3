#!/usr/bin/env bash
# Fills the README's table of rates on a GPU, in at most 8 minutes, and runs the exactness tests on the GPU.
#
#     bash tests/gpu_check.sh [--tiny] [FOLDER]
#
# FOLDER (default: $OUT, or results/gpu) gets gpu.md, the table in Markdown, gpu.json, all numbers, and what each part
# printed. Each part has its own limit of time, and a part that fails leaves the others alone. The exit code is 1 if a
# part failed. --tiny uses the sizes of the tests and runs anywhere. PYTHON names the interpreter (default: python).
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

# part NAME SECONDS COMMAND...: runs a part, and keeps what it prints in FOLDER/NAME.txt.
part() {
    local name="$1" seconds="$2"
    shift 2
    echo "== $name (at most $seconds s)"
    if timeout "$seconds" "$@" >"$out/$name.txt" 2>&1; then
        tail -n 3 "$out/$name.txt"
    else
        echo "$name failed with exit code $?"
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
    short="--repetitions 3 --measure-seconds 0.3"
    measure cartpole 155 --workloads CartPole-v1 --batches 4096 65536 262144 1048576 $short
    measure others 115 --workloads Breakout-MinAtar tokens --lanes 4096 32768 --answers 512 4096 $short
    part kernel 55 "$python" -m experiments.throughput.one_kernel
    # The units of the GPU beside the emulation: what TF32 and bfloat16 cost the gradient.
    part precision 60 "$python" -m experiments.precision --problems random --policies 5 --batches 64 16384 --most 2 \
        --seeds 0 --no-cache --output-dir "$out/runs"
    part exactness 75 "$python" -m pytest -n0 -p no:cacheprovider tests/pgjax/test_returns.py \
        tests/pgjax/exact/test_exact.py tests/pgjax/exact/test_tabular.py tests/pgjax/test_sampled_pipeline.py
fi

"$python" -m experiments.throughput.gpu_page "$out" || failed="$failed page"
if [ -n "$failed" ]; then
    echo "failed:$failed"
    exit 1
fi
