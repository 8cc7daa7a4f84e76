/* SPDX-License-Identifier: MIT
 *
 * The root of what is compiled once per instruction set and dtype. A translation unit defines
 *
 *     FRNN_ISA_SCALAR, FRNN_ISA_AVX2 or FRNN_ISA_AVX512     the vocabulary to use
 *     FRNN_REAL_F32 or FRNN_REAL_F64                        the dtype
 *     FRNN_TARGET                                           a string of compiler features (not
 * scalar) FRNN_TABLE, FRNN_ISA_NAME                             name of the table, of the ISA
 *
 * and includes this file, which opens a region of code for that target, includes the parts and
 * emits one constant table, the only symbol of the object. The features stand in the source, not
 * on the command line, so that every build is "compile all files". System headers are included
 * before the region opens. No code tests __AVX2__ and its like: clang does not define them inside
 * a region.
 */
#include "../internal.h"

#if !defined(FRNN_ISA_SCALAR)
#include <immintrin.h>
#define FRNN_PRAGMA_TEXT(text) _Pragma(#text)
#define FRNN_PRAGMA(text)      FRNN_PRAGMA_TEXT(text)
#if defined(__clang__)
FRNN_PRAGMA(clang attribute push(__attribute__((target(FRNN_TARGET))), apply_to = function))
#else
#pragma GCC push_options
FRNN_PRAGMA(GCC target(FRNN_TARGET))
#endif
#endif

#define INLINE   static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))
/* A build with sanitizers may define it as nothing, and takes minutes less; so does the scalar one,
 * whose bodies are too long to repeat, and is as fast. */
#if !defined(UNROLL)
#if defined(FRNN_ISA_SCALAR)
#define UNROLL
#elif defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
#endif

#include "vec.h"
#include "vmath.h"
#include "gemm.h"
#include "grad.h"
#include "lists.h"
#include "activation.h"
#include "cells/cell.h"
#include "cells/back.h"
#include "cells/lstm.h"
#include "cells/rnn.h"
#include "cells/leaky.h"
#include "cells/gru.h"
#include "scan.h"
#include "gated.h"
#include "probe.h"

#define FRNN_ARRAY_FUNCTION(name, function)                                                        \
    static void name(const void *x, void *y, size_t n) {                                           \
        for (size_t i = 0; i < n; i += VL) {                                                       \
            const size_t count = frnn_min(VL, n - i);                                              \
            vstore_n((real *)y + i, function(vload_n((const real *)x + i, count)), count);         \
        }                                                                                          \
    }
FRNN_ARRAY_FUNCTION(exp_array, vexp)
FRNN_ARRAY_FUNCTION(sigmoid_array, vsigmoid)
FRNN_ARRAY_FUNCTION(tanh_array, vtanh)

static void activate_array(const frnn_function *function, const void *x, void *y, size_t n) {
    for (size_t i = 0; i < n; i += VL) {
        const size_t count = frnn_min(VL, n - i);
        vstore_n((real *)y + i, activate(function, vload_n((const real *)x + i, count)), count);
    }
}

const frnn_kernels FRNN_TABLE = {
    .isa = FRNN_ISA_NAME,
    .project = project,
    .emit = emit,
    .step =
        {
#define FRNN_CELL(ENUM, name, gates, apart, states, memory, direct, alpha, history)                \
    [FRNN_CELL_##ENUM] = name##_step,
#include "../cells.def"
#undef FRNN_CELL
        },
    .hidden =
        {
#define FRNN_CELL(ENUM, name, gates, apart, states, memory, direct, alpha, history)                \
    [FRNN_CELL_##ENUM] = name##_hidden_rows,
#include "../cells.def"
#undef FRNN_CELL
        },
    .step_back =
        {
#define FRNN_CELL(ENUM, name, gates, apart, states, memory, direct, alpha, history)                \
    [FRNN_CELL_##ENUM] = name##_step_back,
#include "../cells.def"
#undef FRNN_CELL
        },
    .project_back = project_back,
    .outer = outer,
    .lists_back = lists_back,
    .lists_outer = lists_outer,
    .blend = blend,
    .scan = scan,
    .scan_back = scan_back,
    .gated = gated,
    .gated_back = gated_back,
    .add = add_array,
    .add_product = add_product_array,
    .exp = exp_array,
    .sigmoid = sigmoid_array,
    .tanh = tanh_array,
    .activate = activate_array,
    .fma_flops = fma_flops,
    .read_bytes = read_bytes,
};

#if !defined(FRNN_ISA_SCALAR)
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
