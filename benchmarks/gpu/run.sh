#!/usr/bin/env bash
# What a GPU is asked, in ten minutes: the kernels' tests, then times and ranks.
#
#   benchmarks/gpu/run.sh [--device cuda|cpu] [--out FOLDER] [--wheels FOLDER]
#
# Nothing is fetched: what Python lacks here comes from FOLDER, as wheels. On a CPU sizes are small, which shows that
# the script works. It leaves gpu.json and gpu.md in the output folder, and fails if a test, a model or a rank does.
set -uo pipefail
cd "$(dirname "$0")/../.."
device=cuda out=reports/gpu wheels=
while (($#)); do
  case $1 in
    --device) device=$2 ;;
    --out) out=$2 ;;
    --wheels) wheels=$2 ;;
    *) echo "error: $1 is not known; see the head of $0" >&2; exit 2 ;;
  esac
  shift 2
done
out=$(realpath -m "$out")
mkdir -p "$out"
export PYTHONUNBUFFERED=1 PYTHONPATH=$PWD
if [[ $wheels ]]; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl || exit
  PYTHONPATH=$site:$PYTHONPATH
fi
# A release of torch or pytest other than ours may warn of what is no fault here.
timeout 300 python3 -m pytest -q -x -p no:cacheprovider -W default tests/test_kernels.py 2>&1 | tee "$out/tests.txt"
tests=$?
timeout 420 python3 benchmarks/gpu/measure.py --device "$device" --out "$out"
measured=$?
echo "kernel tests: $tests, measurements: $measured (0 is passed)"
exit $((tests || measured))
