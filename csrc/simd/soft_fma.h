/* SPDX-License-Identifier: MIT
 *
 * a * b + c with one rounding, for the scalar backend: the compiler's own where it is an
 * instruction, arithmetic where it would be a call to libm.
 *
 * Domain of the arithmetic: every float and double, subnormal numbers, zeros and their signs,
 * infinities and NaN included, in the rounding mode to nearest and with float and double evaluated
 * in their own precision (FLT_EVAL_METHOD 0; not the x87 unit). The sign and payload of a NaN are
 * the machine's choice.
 */
#ifndef FRNN_SOFT_FMA_H
#define FRNN_SOFT_FMA_H

#if defined(__clang__) || defined(__GNUC__)
#define FRNN_RARELY(condition) __builtin_expect(!!(condition), 0)
#define FRNN_COLD              __attribute__((noinline, cold, unused))
#define FRNN_OUTLINE           static __attribute__((noinline, unused)) /* long: one copy will do */
#else
#define FRNN_RARELY(condition) (condition)
#define FRNN_COLD
#define FRNN_OUTLINE static
#endif

/* gcc says so itself (__FP_FAST_FMA*); clang does not, so its targets are named. */
#if defined(__FMA__) || defined(__aarch64__) || defined(__powerpc64__) || defined(__s390x__)
#define FRNN_HARD_FMAF 1
#define FRNN_HARD_FMA  1
#elif defined(__ARM_FEATURE_FMA) && defined(__ARM_FP)
#define FRNN_HARD_FMAF ((__ARM_FP & 4) != 0)
#define FRNN_HARD_FMA  ((__ARM_FP & 8) != 0)
#elif defined(__riscv_flen)
#define FRNN_HARD_FMAF (__riscv_flen >= 32)
#define FRNN_HARD_FMA  (__riscv_flen >= 64)
#else
#if defined(__FP_FAST_FMAF)
#define FRNN_HARD_FMAF 1
#endif
#if defined(__FP_FAST_FMA)
#define FRNN_HARD_FMA 1
#endif
#endif

static inline uint64_t frnn_bits(double x) {
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}
static inline double frnn_from_bits(uint64_t u) {
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* The exponent field: 0 for subnormal numbers, 2047 for infinities and NaN. */
static inline uint64_t frnn_exponent(double x) {
    return frnn_bits(x) >> 52 & 0x7ff;
}

/* a + b = sum + *error exactly (Knuth); NaN in the error if the sum is not finite. */
static inline double frnn_two_sum(double a, double b, double *error) {
    const double sum = a + b, b_part = sum - a;
    *error = (a - (sum - b_part)) + (b - b_part);
    return sum;
}

/*
 * a + b rounded to odd: to the neighbour whose last bit is 1 if the sum is inexact. Such a number,
 * with at least two bits to spare, rounds once more as the exact sum would
 * (Boldo and Melquiond 2008).
 */
static inline double frnn_add_odd(double a, double b) {
    double error;
    const double sum = frnn_two_sum(a, b, &error);
    const uint64_t u = frnn_bits(sum);
    const uint64_t inexact = (error > 0) | (error < 0); /* not when NaN */
    const uint64_t beyond = ((u ^ frnn_bits(error)) >> 63) & inexact;
    return frnn_from_bits((u - beyond) | inexact);
}

FRNN_COLD static float frnn_soft_fmaf_rare(double product, double c) {
    return (float)frnn_add_odd(product, c);
}

/*
 * The product of two floats is exact in double, so the sum in double is the exact result rounded
 * to 53 bits. Rounding that to a float goes wrong only if it lies half way between two floats
 * (the bit below the mantissa of a float set, those below it clear). Subnormal results have their
 * half way elsewhere and take the careful route as well.
 */
static inline float frnn_soft_fmaf(float a, float b, float c) {
    const double product = (double)a * b, sum = product + c;
    const uint64_t u = frnn_bits(sum);
    if (FRNN_RARELY((u & 0x1fffffff) == 0x10000000 || frnn_exponent(sum) < 1023 - 126))
        return frnn_soft_fmaf_rare(product, c);
    return (float)sum;
}

/* ---- double ------------------------------------------------------------------------------- */

/* 128 bits as two words. */
typedef struct frnn_wide {
    uint64_t high, low;
} frnn_wide;

static inline frnn_wide frnn_wide_mul(uint64_t a, uint64_t b) {
    const uint64_t a1 = a >> 32, a0 = (uint32_t)a, b1 = b >> 32, b0 = (uint32_t)b;
    const uint64_t low = a0 * b0, cross = a1 * b0 + (low >> 32), other = a0 * b1 + (uint32_t)cross;
    const frnn_wide product = {a1 * b1 + (cross >> 32) + (other >> 32),
                               other << 32 | (uint32_t)low};
    return product;
}

/* x >> n, the last bit set if any bit set was lost; any n >= 0. */
static inline frnn_wide frnn_wide_shift_odd(frnn_wide x, int n) {
    uint64_t lost = 0;
    if (n >= 128) {
        const frnn_wide only = {0, (x.high | x.low) != 0};
        return only;
    }
    if (n >= 64) {
        lost = x.low;
        x.low = x.high;
        x.high = 0;
        n -= 64;
    }
    if (n > 0) {
        lost |= x.low << (64 - n);
        x.low = x.low >> n | x.high << (64 - n);
        x.high >>= n;
    }
    x.low |= lost != 0;
    return x;
}

/* x << n, 0 <= n < 128, nothing lost by the caller's choice of n. */
static inline frnn_wide frnn_wide_shift_up(frnn_wide x, int n) {
    if (n >= 64) {
        x.high = x.low;
        x.low = 0;
        n -= 64;
    }
    if (n > 0) {
        x.high = x.high << n | x.low >> (64 - n);
        x.low <<= n;
    }
    return x;
}
static inline frnn_wide frnn_wide_add(frnn_wide a, frnn_wide b) {
    const uint64_t low = a.low + b.low;
    const frnn_wide sum = {a.high + b.high + (low < a.low), low};
    return sum;
}
static inline frnn_wide frnn_wide_sub(frnn_wide a, frnn_wide b) {
    const frnn_wide difference = {a.high - b.high - (a.low < b.low), a.low - b.low};
    return difference;
}
static inline int frnn_wide_less(frnn_wide a, frnn_wide b) {
    return a.high != b.high ? a.high < b.high : a.low < b.low;
}

/* Position of the highest bit set; x != 0. */
static inline int frnn_top_bit(uint64_t x) {
    int top = 0;
    for (int step = 32; step > 0; step /= 2)
        if (x >> step) {
            x >>= step;
            top += step;
        }
    return top;
}

/* |x| = mantissa * 2^exponent, the mantissa of 53 bits also for a subnormal x; x finite, not 0. */
static inline uint64_t frnn_split(double x, int *exponent) {
    const uint64_t u = frnn_bits(x) & ~(UINT64_C(1) << 63);
    *exponent = (int)(u >> 52) - 1075;
    if (u >> 52)
        return (u & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1) << 52;
    const int up = 52 - frnn_top_bit(u);
    *exponent = -1074 - up;
    return u << up;
}

/* The same in integers, for every number. */
FRNN_COLD static double frnn_soft_fma_rare(double a, double b, double c) {
    if (a == 0 || b == 0 || frnn_exponent(a) == 2047 || frnn_exponent(b) == 2047)
        return a * b + c; /* the product is exact */
    if (frnn_exponent(c) == 2047)
        return c + c;
    if (c == 0)
        return a * b;

    /* Both terms at the scale 2^exponent, with room for a carry above and 20 bits below. */
    int a_exponent, b_exponent, c_exponent;
    const uint64_t a_mantissa = frnn_split(a, &a_exponent), b_mantissa = frnn_split(b, &b_exponent);
    frnn_wide product = frnn_wide_mul(a_mantissa << 10, b_mantissa << 10);
    frnn_wide addend = {0, frnn_split(c, &c_exponent)};
    int exponent = a_exponent + b_exponent - 20;
    const int up = c_exponent - exponent;
    if (up < 0) {
        addend = frnn_wide_shift_odd(addend, -up);
    } else {
        addend = frnn_wide_shift_up(addend, up < 73 ? up : 73);
        product = frnn_wide_shift_odd(product, up < 73 ? 0 : up - 73);
        exponent += up < 73 ? 0 : up - 73;
    }

    const uint64_t sign_bit = UINT64_C(1) << 63;
    uint64_t sign = (frnn_bits(a) ^ frnn_bits(b)) & sign_bit;
    frnn_wide sum;
    if (sign == (frnn_bits(c) & sign_bit)) {
        sum = frnn_wide_add(product, addend);
    } else if (frnn_wide_less(product, addend)) {
        sum = frnn_wide_sub(addend, product);
        sign ^= sign_bit;
    } else {
        sum = frnn_wide_sub(product, addend);
    }
    if ((sum.high | sum.low) == 0)
        return 0;

    /* Two bits below the last one of the result: the half and whether anything lies below it. */
    const int top = sum.high ? 64 + frnn_top_bit(sum.high) : frnn_top_bit(sum.low);
    int last = exponent + top - 52;
    if (last < -1074)
        last = -1074;
    const int down = last - 2 - exponent;
    sum = down < 0 ? frnn_wide_shift_up(sum, -down) : frnn_wide_shift_odd(sum, down);
    const uint64_t rest = sum.low & 3;
    const uint64_t mantissa = (sum.low >> 2) + (rest == 3 || (rest == 2 && (sum.low >> 2 & 1)));
    /* The top bit of the mantissa raises the exponent field by one, and so does a carry. */
    const int field = last + 1074;
    if (field > 2045)
        return frnn_from_bits(sign | UINT64_C(2047) << 52);
    return frnn_from_bits(sign | (((uint64_t)field << 52) + mantissa));
}

/* x in two parts of at most 26 bits (Veltkamp; the sign of the lower gives the bit). */
static inline double frnn_upper(double x) {
    const double scaled = x * 0x8000001p0;
    return scaled - (scaled - x);
}

/*
 * Product and sum as pairs of doubles without error (Dekker, Knuth), the two small parts added
 * with rounding to odd, the large one added last (Boldo and Melquiond 2008). The bounds keep every
 * step from overflow and the product's lower part from underflow; outside them integers do it.
 */
FRNN_OUTLINE double frnn_soft_fma(double a, double b, double c) {
    const double product = a * b;
    if (FRNN_RARELY(frnn_exponent(product) - 150 > 1850 || frnn_exponent(a) > 2000 ||
                    frnn_exponent(b) > 2000 || frnn_exponent(c) > 2000))
        return frnn_soft_fma_rare(a, b, c);
    const double a1 = frnn_upper(a), a0 = a - a1, b1 = frnn_upper(b), b0 = b - b1;
    const double product_error = a0 * b0 - (((product - a1 * b1) - a0 * b1) - a1 * b0);
    double low, high_error;
    const double middle = frnn_two_sum(c, product_error, &low);
    const double high = frnn_two_sum(product, middle, &high_error);
    return high + frnn_add_odd(low, high_error);
}

/* ---- One of the two ----------------------------------------------------------------------- */

static inline float frnn_fmaf(float a, float b, float c) {
#if FRNN_HARD_FMAF
    return __builtin_fmaf(a, b, c);
#else
    return frnn_soft_fmaf(a, b, c);
#endif
}
static inline double frnn_fma(double a, double b, double c) {
#if FRNN_HARD_FMA
    return __builtin_fma(a, b, c);
#else
    return frnn_soft_fma(a, b, c);
#endif
}

#endif
