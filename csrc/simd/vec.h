/* SPDX-License-Identifier: MIT */
/*
 * The vector vocabulary: the only words in which products, cells and elementary functions are
 * written. One translation unit is one ISA and one dtype; it defines
 *     FRNN_ISA_SCALAR | FRNN_ISA_AVX2 | FRNN_ISA_AVX512     exactly one
 *     FRNN_REAL_F32 | FRNN_REAL_F64                         exactly one
 * includes <stddef.h>, <stdint.h>, <string.h> (and <immintrin.h> for an x86 ISA), opens the target
 * region of its ISA, and includes this file. Our macro picks the backend, never the compiler's
 * __AVX2__, which clang does not define inside a target region.
 *
 *   real                    float or double
 *   vreal                   a vector of VL reals (scalar: VL == 1 and vreal is real)
 *
 *   vload(p) vstore(p, v)   VL reals at p; p need only be aligned as a real is
 *   vload_n(p, n)           the first n lanes, 0 <= n <= VL; the others are 0
 *   vstore_n(p, v, n)       the first n lanes; neither touches memory beyond n reals
 *   vgather(p, index)       p[index[i]] in lane i; index is an array of VL uint16_t
 *   vset1(x) vzero()        every lane x; every lane +0
 *
 *   vadd vsub vmul vdiv     (a, b): IEEE, one rounding
 *   vfma(a, b, c)           a * b + c, one rounding
 *   vfnma(a, b, c)          c - a * b, one rounding
 *   vmin(a, b)              a < b ? a : b    so b when either is NaN, or both are zeros
 *   vmax(a, b)              a > b ? a : b    likewise: write the constant first to let NaN through
 *   vabs(a)                 the sign bit cleared
 *   vcopysign(mag, sgn)     magnitude bits of mag, sign bit of sgn
 *   vselect_lt(a, b, x, y)  a < b ? x : y, unordered gives y
 *   vflush(a)               +0 where |a| < FRNN_TINY, else a; NaN passes
 *   vexp2i(t)               2^n where t = n + FRNN_ROUND_MAGIC, n an integer with 2^n normal
 *
 *   vshift_up(v, N)         lane i takes lane i - N, the lowest N lanes take 0; N is a compile-time
 *                           power of two below VL (a macro: the instruction wants an immediate)
 *   vlast(v)                the last lane, in every lane
 *   vprefetch(p)            asks for the cache line of p, into L2; may do nothing
 *
 * Every backend gives the same bits for every word, except the sign and payload of a NaN.
 */
#ifndef FRNN_VEC_H
#define FRNN_VEC_H

#if defined(FRNN_ISA_SCALAR) + defined(FRNN_ISA_AVX2) + defined(FRNN_ISA_AVX512) != 1
#error "define exactly one FRNN_ISA_*"
#endif
#if defined(FRNN_REAL_F32) + defined(FRNN_REAL_F64) != 1
#error "define exactly one FRNN_REAL_*"
#endif

/*
 * Adding FRNN_ROUND_MAGIC rounds a number to an integer n: in [2^23, 2^24) (f64: [2^52, 2^53)) the
 * spacing of numbers is 1, and the factor 1.5 keeps the sum there for negative n as well. The low
 * bits of the sum are then n + bias, negative n included because a borrow ends at the bit of 0.5 *
 * 2^23. A left shift by the width of the mantissa leaves sign 0, exponent n + bias, mantissa 0.
 */
#if defined(FRNN_REAL_F32)
typedef float real;
#define FRNN_TINY        0x1p-100f
#define FRNN_ROUND_MAGIC (0x1.8p23f + 127.0f)
#else
typedef double real;
#define FRNN_TINY        0x1p-900
#define FRNN_ROUND_MAGIC (0x1.8p52 + 1023.0)
#endif

#if defined(FRNN_ISA_SCALAR)
#include "vec_scalar.h"
#elif defined(FRNN_ISA_AVX2)
#include "vec_gather.h"
#include "vec_avx2.h"
#else
#include "vec_gather.h"
#include "vec_avx512.h"
#endif

#endif
