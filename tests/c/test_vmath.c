/* SPDX-License-Identifier: MIT
 *
 * exp, sigmoid and tanh of every instruction set against libm.
 *
 *     cc -std=c11 -O2 -ffp-contract=off -Icsrc tests/c/test_vmath.c csrc/[*].c csrc/simd/[*].c -lm
 *     test_vmath [--all] [isa ...]
 *
 * Without --all: a sample of the floats (every 1009th with its neighbour, and all near the points
 * where something changes); with it every float there is, some minutes per instruction set. double
 * is sampled in both cases. Without names, all instruction sets of this machine. Checked: error in
 * units in the last place (of subnormal results too), range, sigmoid monotone, tanh odd, special
 * values, tails of vectors, and that all instruction sets give the bits of the first one named
 * (scalar by default). Prints a line for each; exits with 1 if anything is wrong.
 */
#include "internal.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_ULP  2.0
#define BATCH    4096
#define MAX_ISAS 8

/* ---- Functions ---------------------------------------------------------------------------- */

typedef void (*array_function)(const void *x, void *y, size_t n);

typedef struct function {
    const char *name;
    double (*approximate)(double x); /* good enough for float */
    long double (*exact)(long double x);
    long double low, high; /* the range, ends included */
    int monotone;
} function;

static double sigmoid_approximate(double x) {
    return 1 / (1 + exp(-x));
}

static long double sigmoid_exact(long double x) {
    return 1 / (1 + expl(-x));
}

enum { EXP, SIGMOID, TANH, FUNCTION_COUNT };

static const function functions[FUNCTION_COUNT] = {
    {"exp", exp, expl, 0, INFINITY, 0},
    {"sigmoid", sigmoid_approximate, sigmoid_exact, 0, 1, 1},
    {"tanh", tanh, tanhl, -1, 1, 0},
};

static array_function kernel_function(const frnn_kernels *kernels, int which) {
    const array_function table[] = {kernels->exp, kernels->sigmoid, kernels->tanh};
    return table[which];
}

/* ---- Numbers of either dtype -------------------------------------------------------------- */

typedef union numbers {
    float f32[BATCH];
    double f64[BATCH];
    unsigned char bytes[BATCH * sizeof(double)];
} numbers;

static double number_at(const numbers *v, frnn_dtype dtype, size_t i) {
    return dtype == FRNN_F32 ? (double)v->f32[i] : v->f64[i];
}

/* The key of a number is its place among all numbers of the dtype in order: 0 is -0.0, one above
 * is +0.0; -inf and +inf are the first and last. NaN have none. */
static double from_key(frnn_dtype dtype, int64_t key) {
    if (dtype == FRNN_F32) {
        const uint32_t bits = key > 0 ? (uint32_t)(key - 1) : UINT32_C(1) << 31 | (uint32_t)-key;
        float x;
        memcpy(&x, &bits, sizeof x);
        return (double)x;
    }
    const uint64_t bits = key > 0 ? (uint64_t)(key - 1) : UINT64_C(1) << 63 | (uint64_t)-key;
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static int64_t to_key(frnn_dtype dtype, double x) {
    int64_t bits;
    if (dtype == FRNN_F32) {
        const float narrow = fabsf((float)x);
        uint32_t bits32;
        memcpy(&bits32, &narrow, sizeof bits32);
        bits = bits32;
    } else {
        const double magnitude = fabs(x);
        memcpy(&bits, &magnitude, sizeof bits);
    }
    return signbit(x) ? -bits : bits + 1;
}

/* |y - exact| in units in the last place of the exact value; an infinite y stands for the first
 * power of two that is too large. */
static long double ulp_error(frnn_dtype dtype, long double y, long double exact) {
    const int digits = dtype == FRNN_F32 ? FLT_MANT_DIG : DBL_MANT_DIG;
    const int lowest = dtype == FRNN_F32 ? FLT_MIN_EXP : DBL_MIN_EXP;
    const int highest = dtype == FRNN_F32 ? FLT_MAX_EXP : DBL_MAX_EXP;
    const long double limit = ldexpl(1, highest);
    y = fminl(y, limit);
    exact = fminl(exact, limit);
    int exponent;
    frexpl(exact, &exponent);
    if (exact == 0 || exponent < lowest)
        exponent = lowest;
    return fabsl(y - exact) * ldexpl(1, digits - (exponent > highest ? highest : exponent));
}

/* The same in double, whose rounding is far below what matters to a float. */
static double ulp_error_f32(double y, double exact) {
    const double magnitude = fmin(fabs(exact), 0x1p128);
    uint64_t bits;
    memcpy(&bits, &magnitude, sizeof bits);
    int exponent = (int)(bits >> 52) - 1023; /* 2^exponent <= magnitude */
    if (exponent < -126)
        exponent = -126;
    if (exponent > 127)
        exponent = 127;
    bits = (uint64_t)(1023 + 23 - exponent) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return fabs(fmin(y, 0x1p128) - fmin(exact, 0x1p128)) * scale;
}

/* ---- Checking a batch --------------------------------------------------------------------- */

typedef struct result {
    double ulp, at; /* the largest error and where */
    unsigned long long values, wrong;
} result;

typedef struct check {
    frnn_dtype dtype;
    int which;
    const frnn_kernels *kernels[MAX_ISAS];
    size_t isas;
    result results[MAX_ISAS];
    size_t n;
    numbers x, y[MAX_ISAS], mirrored;
    unsigned char joined[BATCH]; /* the number follows the one before it in the order */
} check;

static void complain(const check *c, size_t isa, const char *what, double x, double y) {
    if (c->results[isa].wrong < 5)
        printf("  %s %s %s(%a): %s, got %a\n", c->kernels[isa]->isa,
               c->dtype == FRNN_F32 ? "f32" : "f64", functions[c->which].name, x, what, y);
}

static void check_values(check *c, size_t isa) {
    const function *f = &functions[c->which];
    result *r = &c->results[isa];
    for (size_t i = 0; i < c->n; i++) {
        const double x = number_at(&c->x, c->dtype, i), y = number_at(&c->y[isa], c->dtype, i);
        const char *wrong = NULL;
        if (isnan(x) || isnan(y)) {
            if (!isnan(x) || !isnan(y))
                wrong = "NaN in, NaN out";
        } else {
            double ulp;
            if (c->dtype == FRNN_F32) {
                ulp = ulp_error_f32(y, f->approximate(x));
                if (ulp > MAX_ULP - 0.01)
                    ulp = (double)ulp_error(FRNN_F32, y, f->exact(x));
            } else {
                ulp = LDBL_MANT_DIG > 53 ? (double)ulp_error(FRNN_F64, y, f->exact(x)) : 0;
            }
            if (ulp > r->ulp) {
                r->ulp = ulp;
                r->at = x;
            }
            if (ulp > MAX_ULP)
                wrong = "too far from the exact value";
            else if (y < f->low || y > f->high)
                wrong = "out of range";
            else if (f->monotone && c->joined[i] && y < number_at(&c->y[isa], c->dtype, i - 1))
                wrong = "less than its predecessor";
        }
        if (wrong) {
            complain(c, isa, wrong, x, y);
            r->wrong++;
        }
    }
}

static int same(const numbers *a, const numbers *b, frnn_dtype dtype, size_t i) {
    const size_t size = frnn_itemsize(dtype);
    return memcmp(a->bytes + i * size, b->bytes + i * size, size) == 0 ||
           (isnan(number_at(a, dtype, i)) && isnan(number_at(b, dtype, i)));
}

static void check_odd(check *c) {
    for (size_t i = 0; i < c->n; i++) {
        c->mirrored.f64[i] = 0;
        if (c->dtype == FRNN_F32)
            c->mirrored.f32[i] = -c->x.f32[i];
        else
            c->mirrored.f64[i] = -c->x.f64[i];
    }
    kernel_function(c->kernels[0], c->which)(&c->mirrored, &c->mirrored, c->n);
    for (size_t i = 0; i < c->n; i++) {
        const double y = number_at(&c->y[0], c->dtype, i), m = number_at(&c->mirrored, c->dtype, i);
        if (!isnan(y) && (y != -m || signbit(y) == signbit(m))) {
            complain(c, 0, "not odd", number_at(&c->x, c->dtype, i), y);
            c->results[0].wrong++;
        }
    }
}

static void check_batch(check *c) {
    for (size_t isa = 0; isa < c->isas; isa++) {
        result *r = &c->results[isa];
        kernel_function(c->kernels[isa], c->which)(&c->x, &c->y[isa], c->n);
        r->values += c->n;
        if (isa == 0) {
            check_values(c, isa);
            continue;
        }
        if (memcmp(&c->y[isa], &c->y[0], c->n * frnn_itemsize(c->dtype)) == 0)
            continue;
        for (size_t i = 0; i < c->n; i++)
            if (!same(&c->y[isa], &c->y[0], c->dtype, i)) {
                complain(c, isa, "other bits than the first instruction set",
                         number_at(&c->x, c->dtype, i), number_at(&c->y[isa], c->dtype, i));
                r->wrong++;
            }
    }
    if (c->which == TANH)
        check_odd(c);
    c->n = 0;
}

static void add_number(check *c, double x, int joined) {
    if (c->n == BATCH) {
        /* the last one again, so that the next has its predecessor */
        const double last = number_at(&c->x, c->dtype, BATCH - 1);
        check_batch(c);
        if (joined)
            add_number(c, last, 0);
    }
    if (c->dtype == FRNN_F32)
        c->x.f32[c->n] = (float)x;
    else
        c->x.f64[c->n] = x;
    c->joined[c->n++] = (unsigned char)joined;
}

static void add_run(check *c, int64_t first, int64_t last) {
    const int64_t infinity = to_key(c->dtype, INFINITY);
    if (first < 1 - infinity)
        first = 1 - infinity;
    for (int64_t key = first; key <= last && key <= infinity; key++)
        add_number(c, from_key(c->dtype, key), key > first);
}

/* ---- What is checked ---------------------------------------------------------------------- */

/* Where results become subnormal, 0, 1 or infinite, where the formulas clamp, and where they are
 * least accurate. */
static const double points[] = {
    0,       0x1p-149, 0x1p-126, 0x1p-1074, 0x1p-1022, 0x1p-24,  0x1p-12, 0x1p-53,
    0x1p-26, 0.00035,  0.001,    0.1733,    0.2063,    0.5144,   0.5189,  0.549,
    1,       8.664,    9.01,     10,        16.6355,   17.3287,  18.7,    19.06,
    20,      36.7368,  40,       87.3365,   88.7228,   89,       103.279, 103.972,
    105,     708.396,  709.7827, 710,       744.44,    745.1332, 746,     INFINITY};

static void add_sample(check *c) {
    const int is_f32 = c->dtype == FRNN_F32;
    const int64_t infinity = to_key(c->dtype, INFINITY), near = is_f32 ? 3000 : 400;
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++)
        for (int sign = -1; sign <= 1; sign += 2) {
            const int64_t key = to_key(c->dtype, sign * points[i]);
            add_run(c, key - near, key + near);
        }
    /* The borders between the powers of two of e^x, and of e^2x for tanh. */
    const double step = 0.69314718055994531 / (c->which == TANH ? 2 : 1);
    for (int k = is_f32 ? -160 : -1080; k <= (is_f32 ? 160 : 1080); k++) {
        const int64_t key = to_key(c->dtype, (k + 0.5) * step);
        add_run(c, key - 40, key + 40);
    }
    if (is_f32)
        for (int64_t key = 1 - infinity; key <= infinity; key += 1009)
            add_run(c, key, key + 1);
    uint64_t random = UINT64_C(88172645463325252);
    for (int i = 0; i < 100000; i++) { /* xorshift64 (Marsaglia 2003) */
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        const double unit = (double)(random >> 11) * 0x1p-53;
        static const double widths[] = {2, 20, 80, 1500, 4, 1};
        const double x = (unit - 0.5) * widths[i % 6] * (i % 6 == 5 ? ldexp(1, -(i / 6 % 60)) : 1);
        const int64_t key = to_key(c->dtype, x);
        add_run(c, key, key + 1);
    }
}

/* Every float in order, then every NaN. */
static void add_all(check *c) {
    const int64_t infinity = to_key(c->dtype, INFINITY);
    add_run(c, 1 - infinity, infinity);
    check_batch(c);
    for (uint32_t payload = 1; payload < UINT32_C(1) << 23; payload++)
        for (uint32_t sign = 0; sign <= 1; sign++) {
            const uint32_t bits = sign << 31 | UINT32_C(0xff) << 23 | payload;
            memcpy(&c->x.f32[c->n++], &bits, sizeof bits);
            if (c->n == BATCH)
                check_batch(c);
        }
}

static void expect(check *c, double x, double y) {
    for (size_t isa = 0; isa < c->isas; isa++) {
        c->x.f64[0] = x;
        if (c->dtype == FRNN_F32)
            c->x.f32[0] = (float)x;
        kernel_function(c->kernels[isa], c->which)(&c->x, &c->y[isa], 1);
        const double got = number_at(&c->y[isa], c->dtype, 0);
        const int right = isnan(y) ? isnan(got) : got == y && signbit(got) == signbit(y);
        if (!right) {
            complain(c, isa, "special value", x, got);
            c->results[isa].wrong++;
        }
    }
}

static void check_specials(check *c) {
    static const struct {
        int which;
        double x, y;
    } specials[] = {
        {EXP, -INFINITY, 0},     {EXP, INFINITY, INFINITY}, {EXP, 0.0, 1},
        {EXP, -0.0, 1},          {EXP, 1000, INFINITY},     {EXP, -1e30, 0},
        {SIGMOID, -INFINITY, 0}, {SIGMOID, INFINITY, 1},    {SIGMOID, 0.0, 0.5},
        {SIGMOID, -0.0, 0.5},    {SIGMOID, 1e30, 1},        {SIGMOID, -1e30, 0},
        {TANH, -INFINITY, -1},   {TANH, INFINITY, 1},       {TANH, 0.0, 0.0},
        {TANH, -0.0, -0.0},      {TANH, 1e30, 1},           {TANH, -1e30, -1},
    };
    for (size_t i = 0; i < sizeof specials / sizeof specials[0]; i++)
        if (specials[i].which == c->which)
            expect(c, specials[i].x, specials[i].y);
    expect(c, NAN, NAN);
    expect(c, -NAN, NAN);
}

/* Arrays of every length to 50 at odd addresses, in place: the same values as in long arrays, and
 * nothing touched behind the end. */
static void check_tails(check *c) {
    const size_t size = frnn_itemsize(c->dtype);
    enum { LONGEST = 50 };
    for (size_t isa = 0; isa < c->isas; isa++) {
        const array_function f = kernel_function(c->kernels[isa], c->which);
        numbers *x = &c->x, *y = &c->y[isa];
        for (size_t i = 0; i < LONGEST + 2; i++) {
            const double value = ((double)i - LONGEST / 2.0) / 3;
            if (c->dtype == FRNN_F32)
                x->f32[i] = (float)value;
            else
                x->f64[i] = value;
        }
        f(x, y, LONGEST + 2);
        for (size_t n = 0; n <= LONGEST; n++) {
            numbers *part = &c->mirrored;
            memcpy(part, x, (LONGEST + 2) * size);
            f(part->bytes + size, part->bytes + size, n);
            if (memcmp(part, x, size) != 0 ||
                memcmp(part->bytes + size, y->bytes + size, n * size) != 0 ||
                memcmp(part->bytes + (n + 1) * size, x->bytes + (n + 1) * size, size) != 0) {
                complain(c, isa, "the tail of an array", (double)n, (double)n);
                c->results[isa].wrong++;
            }
        }
    }
}

static unsigned long long run(check *c, frnn_dtype dtype, int which, int all) {
    unsigned long long wrong = 0;
    c->dtype = dtype;
    c->which = which;
    c->n = 0;
    memset(c->results, 0, sizeof c->results);
    check_specials(c);
    check_tails(c);
    if (all && dtype == FRNN_F32)
        add_all(c);
    else
        add_sample(c);
    check_batch(c);
    for (size_t isa = 0; isa < c->isas; isa++) {
        const result *r = &c->results[isa];
        printf("%-7s %s %-8s ", c->kernels[isa]->isa, dtype == FRNN_F32 ? "f32" : "f64",
               functions[which].name);
        if (isa == 0)
            printf("at most %.4f ulp, at %a; ", r->ulp, r->at);
        else if (r->wrong == 0)
            printf("the same bits as %s; ", c->kernels[0]->isa);
        printf("%llu values, %llu wrong\n", r->values, r->wrong);
        wrong += r->wrong;
    }
    fflush(stdout);
    return wrong;
}

int main(int argc, char **argv) {
    static const char *const known[] = {"scalar", "avx2", "avx512", "neon"};
    static check c;
    int all = 0;
    const char *names[MAX_ISAS];
    size_t count = 0;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--all") == 0) {
            all = 1;
        } else if (count < MAX_ISAS && frnn_kernels_get(argv[i], FRNN_F32) != NULL) {
            names[count++] = argv[i];
        } else {
            fprintf(stderr, "no such instruction set here: %s\n", argv[i]);
            return 2;
        }
    }
    if (count == 0)
        for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
            if (frnn_kernels_get(known[i], FRNN_F32) != NULL)
                names[count++] = known[i];

    unsigned long long wrong = 0;
    for (int dtype = 0; dtype < FRNN_DTYPE_COUNT; dtype++)
        for (int which = 0; which < FUNCTION_COUNT; which++) {
            c.isas = count;
            for (size_t i = 0; i < count; i++)
                c.kernels[i] = frnn_kernels_get(names[i], (frnn_dtype)dtype);
            wrong += run(&c, (frnn_dtype)dtype, which, all);
        }
    if (LDBL_MANT_DIG <= 53)
        printf("long double is double here: errors of f64 were not measured\n");
    return wrong != 0;
}
