#!/usr/bin/env bash
# Builds the C library once with a compiler and flags, then builds and runs every C test with them:
#
#     tests/c/run.sh gcc
#     tests/c/run.sh clang -O1 -g -fsanitize=address,undefined
#
# Objects and programs go to a folder that is removed at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."

compiler=${1:-cc}
shift || true
flags=(-std=c11 -O2 -ffp-contract=off -Wall -Wextra -Wpedantic -Werror -Icsrc "$@")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for source in csrc/*.c csrc/simd/*.c; do
    "$compiler" "${flags[@]}" -c "$source" -o "$work/$(basename "$source" .c).o"
done

for test in test_safetensors test_model test_architecture test_structure_keys \
    test_structure_tensors test_library test_refusals test_train test_train_refusals test_ragged \
    test_ragged_refusals test_structures test_structure_refusals test_structure_buffers \
    test_gated test_vmath; do
    echo "== $compiler $* $test"
    "$compiler" "${flags[@]}" "tests/c/$test.c" "$work"/*.o -lm -o "$work/program"
    "$work/program"
done

echo "== $compiler $* fuzz_model"
"$compiler" "${flags[@]}" -DSTANDALONE tests/c/fuzz_model.c "$work"/*.o -o "$work/program"
"$work/program" 5000

avx2=(-DFRNN_ISA_AVX2 -mavx2 -mfma)
avx512=(-DFRNN_ISA_AVX512 -mavx512f -mavx512vl -mavx512bw -mavx512dq -mfma)
for real in F32 F64; do
    for isa in scalar avx2 avx512; do
        case $isa in
            scalar) target=(-DFRNN_ISA_SCALAR) ;;
            avx2) target=("${avx2[@]}") ;;
            avx512) target=("${avx512[@]}") ;;
        esac
        [ "$isa" = scalar ] || [ "$(uname -m)" = x86_64 ] || continue
        echo "== $compiler $* test_vec $isa $real"
        "$compiler" "${flags[@]}" -Icsrc/simd "${target[@]}" "-DFRNN_REAL_$real" tests/c/test_vec.c \
            -lm -o "$work/program"
        "$work/program"
    done
done
