/* SPDX-License-Identifier: MIT
 *
 * The products of the backward. Gradients of the data are products like those of the forward, one
 * for each gate, added up; gradients of the parameters are sums of outer products over rows.
 */

/* ---- Data: rows of gradients times a transposed matrix ------------------------------------- */

/* Blocks of outputs that are interleaved along k, as the gates of a block are in the forward; the
 * last blocks, fewer than these, are not. */
#define QUAD 4

typedef struct product_back {
    size_t rows, k;
    const real *a; /* [rows][slots][k], slots a_gate elements apart */
    size_t a_gate;
    size_t a_last; /* elements by which the last gate lies farther than its number says */
    ptrdiff_t a_row;
    const real *w; /* [gates][blocks][k][16], from the first block of the group on */
    size_t w_gate;
    real *out; /* [rows][panels][16] */
    ptrdiff_t out_row;
    real *partial; /* [rows][FRNN_PARTIAL] */
} product_back;

/* Panels of a single row, with a chain of its own for each gate: else a net of few units would
 * wait for the one chain of each. */
INLINE void tile_back(const int gates, const int panels, const product_back *p) {
    enum { WIDTH = QUAD * VECTORS };
    const int width = panels * VECTORS;
    /* elements from k to k, and from panel to panel */
    const size_t step = panels == QUAD ? QUAD * FRNN_BLOCK : FRNN_BLOCK;
    const size_t panel = panels == QUAD ? FRNN_BLOCK : p->k * FRNN_BLOCK;
    vreal sum[4][WIDTH];
    UNROLL for (int g = 0; g < gates; g++) {
        UNROLL for (int v = 0; v < width; v++) sum[g][v] = vzero();
    }
    const real *w = p->w;
    for (size_t k = 0; k < p->k; k++, w += step) {
        UNROLL for (int g = 0; g < gates; g++) {
            const vreal factor =
                vset1(p->a[(size_t)g * p->a_gate + k + (g == gates - 1 ? p->a_last : 0)]);
            const real *row = w + (size_t)g * p->w_gate;
            UNROLL for (int v = 0; v < width; v++) sum[g][v] = vfma(
                factor, vload(row + (size_t)(v / VECTORS) * panel + v % VECTORS * VL), sum[g][v]);
        }
    }
    UNROLL for (int v = 0; v < width; v++) {
        vreal total = sum[0][v];
        UNROLL for (int g = 1; g < gates; g++) total = vadd(total, sum[g][v]);
        vstore(p->out + v * VL, total);
    }
}

INLINE void row_back(const int gates, const product_back *p, size_t panels) {
    switch (panels) {
    case 1:
        tile_back(gates, 1, p);
        break;
    case 2:
        tile_back(gates, 2, p);
        break;
    case 3:
        tile_back(gates, 3, p);
        break;
    default:
        tile_back(gates, QUAD, p);
        break;
    }
}

/* Not inlined: the tiles need the registers for themselves. */
NOINLINE void row_back_1(const product_back *p, size_t panels) {
    row_back(1, p, panels);
}

NOINLINE void row_back_2(const product_back *p, size_t panels) {
    row_back(2, p, panels);
}

NOINLINE void row_back_3(const product_back *p, size_t panels) {
    row_back(3, p, panels);
}

NOINLINE void row_back_4(const product_back *p, size_t panels) {
    row_back(4, p, panels);
}

INLINE void row_back_call(const int gates, const product_back *p, size_t panels) {
    switch (gates) {
    case 1:
        row_back_1(p, panels);
        break;
    case 2:
        row_back_2(p, panels);
        break;
    case 3:
        row_back_3(p, panels);
        break;
    default:
        row_back_4(p, panels);
    }
}

/* How many of the blocks [begin, end) are worked on together, the first ones or the last; all
 * within the quads, or all behind them. `blocks` is how many the matrix has. */
INLINE size_t group_back(size_t rows, size_t blocks, size_t begin, size_t end, int from_end) {
    const size_t quads = blocks / QUAD * QUAD;
    if (from_end ? end > quads : begin >= quads) {
        const size_t rest = end - frnn_max(begin, quads);
        return rows == 1 ? rest : group_panels(1, rows, rest);
    }
    return rows == 1 ? QUAD : group_panels(QUAD, rows, frnn_min(end, quads) - begin);
}

/* One group of panels of a product. */
INLINE void product_group_back(const int gates, const product_back *p, size_t panels) {
    if (p->rows == 1) {
        row_back_call(gates, p, panels);
        return;
    }
    for (int g = 0; g < gates; g++) {
        product q = {
            .rows = p->rows,
            .a = p->a + (size_t)g * p->a_gate + (g == gates - 1 ? p->a_last : 0),
            .a_row = p->a_row,
            .w = p->w + (size_t)g * p->w_gate,
            .w_block = p->k * FRNN_BLOCK,
            .k = p->k,
            .init = zeros,
            .add = g == 0 ? NULL : p->out,
            .out = p->out,
            .out_row = p->out_row,
            .out_block = FRNN_BLOCK,
        };
        if (panels % QUAD != 0) {
            product_group(1, &q, panels, p->partial);
        } else { /* a quad is to the tile what the gates of a block are */
            q.w_block *= QUAD;
            q.out_block *= QUAD;
            product_group(QUAD, &q, panels, p->partial);
        }
    }
}

INLINE void project_back_gates(const int gates, const frnn_project_back *s) {
    product_back p = {
        .rows = s->rows,
        .k = s->k,
        .a = s->a,
        .a_gate = s->a_gate,
        .a_last = (s->last - (size_t)(gates - 1)) * s->a_gate,
        .a_row = s->a_row,
        .w = s->w,
        .w_gate = s->blocks * s->k * FRNN_BLOCK,
        .out = s->out,
        .out_row = s->out_row,
        .partial = s->partial,
    };
    for (size_t block = 0; block < s->blocks;) {
        const size_t panels = group_back(s->rows, s->blocks, block, s->blocks, 0);
        product_group_back(gates, &p, panels);
        block += panels;
        p.w += panels * s->k * FRNN_BLOCK;
        p.out += panels * FRNN_BLOCK;
    }
}

static void project_back(const frnn_project_back *s) {
    switch (s->gates) {
    case 1:
        project_back_gates(1, s);
        break;
    case 2:
        project_back_gates(2, s);
        break;
    case 3:
        project_back_gates(3, s);
        break;
    default:
        project_back_gates(4, s);
    }
}

/* ---- Parameters: sums of outer products ---------------------------------------------------- */

#define OUTER_BLOCK_BYTES (512 * 1024)
#define ONES_CHAIN        16

/* The most vectors of a tile of c, and for each number of vectors the most rows: with fewer the
 * chains of multiply-adds would be waited for. */
#if defined(FRNN_ISA_AVX2)
#define OUTER_VECTORS       2
#define OUTER_ROWS(vectors) ((vectors) == 1 ? 8 : 4)
#else
#define OUTER_VECTORS       4
#define OUTER_ROWS(vectors) ((vectors) == 1 ? 16 : (vectors) < 4 ? 8 : 6)
#endif

typedef struct outer_chain {
    size_t rows, a_row, b_row, c_row;
    int add;
} outer_chain;

/* One chain of a tile of c: `rows` by `vectors`, both constants, the last vector of `lanes` lanes.
 */
INLINE void outer_tile(const int rows, const int vectors, const outer_chain *s, const real *a,
                       const real *b, real *c, size_t lanes) {
    vreal sum[OUTER_ROWS(1)][OUTER_VECTORS];
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < vectors; v++) {
            vprefetch(c + (size_t)r * s->c_row + v * VL); /* it is needed at the end of the chain */
            sum[r][v] = vzero();
        }
    }
    for (size_t k = s->rows; k > 0; k--) {
        vreal factor[OUTER_VECTORS];
        UNROLL for (int v = 0; v < vectors; v++) factor[v] = vload(b + v * VL);
        UNROLL for (int r = 0; r < rows; r++) {
            const vreal value = vset1(a[r]);
            UNROLL for (int v = 0; v < vectors; v++) sum[r][v] = vfma(value, factor[v], sum[r][v]);
        }
        a += s->a_row;
        b += s->b_row;
    }
    UNROLL for (int r = 0; r < rows; r++) {
        real *row = c + (size_t)r * s->c_row;
        UNROLL for (int v = 0; v < vectors; v++, row += VL) {
            if (v < vectors - 1 || lanes == VL)
                vstore(row, s->add ? vadd(vload(row), sum[r][v]) : sum[r][v]);
            else
                vstore_n(row, s->add ? vadd(vload_n(row, lanes), sum[r][v]) : sum[r][v], lanes);
        }
    }
}

/* Calls the tile of that size: rows is a most, or what is left of it after halving. */
NOINLINE void outer_choose(size_t rows, size_t vectors, const outer_chain *s, const real *a,
                           const real *b, real *c, size_t lanes) {
    switch (rows * 8 + vectors) {
#define LEGAL(rows, vectors)                                                                       \
    ((vectors) <= OUTER_VECTORS && (rows) <= OUTER_ROWS((vectors) <= OUTER_VECTORS ? (vectors) : 1))
#define CASE(rows, vectors)                                                                        \
    case (rows) * 8 + (vectors):                                                                   \
        if (LEGAL(rows, vectors))                                                                  \
            outer_tile(LEGAL(rows, vectors) ? (rows) : 1, LEGAL(rows, vectors) ? (vectors) : 1, s, \
                       a, b, c, lanes);                                                            \
        break;
        /* clang-format off */
#define CASES(vectors)                                                                             \
    CASE(16, vectors) CASE(8, vectors) CASE(6, vectors) CASE(4, vectors) CASE(3, vectors)          \
    CASE(2, vectors) CASE(1, vectors)
        CASES(1) CASES(2) CASES(3) CASES(4)
    default:
        break;
        /* clang-format on */
#undef CASES
#undef CASE
#undef LEGAL
    }
}

/* The rows of the next tile when `rows` are left. */
INLINE size_t outer_rows(size_t rows, size_t vectors) {
    size_t height = OUTER_ROWS(vectors);
    while (height > rows)
        height /= 2;
    return height;
}

/* c[i] (+)= sum over r of a[r][i], the same chains, of shorter ones: an addition is cheap here. */
static void outer_ones(const frnn_outer *s) {
    for (size_t i = 0; i < s->m; i += VL) {
        const size_t lanes = frnn_min(VL, s->m - i);
        const real *a = (const real *)s->a + i;
        real *c = (real *)s->c + i;
        int add = s->add;
        for (size_t begin = 0; begin < s->rows; begin += s->chain) {
            vreal sum = vzero();
            for (size_t k = frnn_min(s->chain, s->rows - begin); k > 0;) {
                vreal part = vzero();
                const size_t length = frnn_min(k, ONES_CHAIN);
                for (size_t r = 0; r < length; r++, a += s->a_row)
                    part = vadd(vload_n(a, lanes), part);
                sum = vadd(part, sum);
                k -= length;
            }
            vstore_n(c, add ? vadd(vload_n(c, lanes), sum) : sum, lanes);
            add = 1;
        }
    }
}

/* One chain of a strip of c: rows [first, end), a tile's width of columns from j on. */
static void outer_strip(const frnn_outer *s, size_t first, size_t end, size_t j, size_t begin) {
    const outer_chain chain = {
        .rows = frnn_min(s->chain, s->rows - begin),
        .a_row = s->a_row,
        .b_row = s->b_row,
        .c_row = s->c_row,
        .add = s->add || begin > 0,
    };
    const real *a = (const real *)s->a + begin * s->a_row;
    const real *b = (const real *)s->b + begin * s->b_row + j;
    real *c = (real *)s->c + j;
    const size_t columns = frnn_min(OUTER_VECTORS * VL, s->n - j);
    const size_t vectors = (columns - 1) / VL + 1, lanes = columns - (vectors - 1) * VL;
    for (size_t i = first; i < end;) {
        const size_t rows = outer_rows(end - i, vectors);
        outer_choose(rows, vectors, &chain, a + i, b, c + i * s->c_row, lanes);
        i += rows;
    }
}

static void outer(const frnn_outer *s) {
    if (s->b == NULL) {
        outer_ones(s);
        return;
    }
    /* So many columns of a stay in L2 while all strips of b pass over them; the chains of a strip
     * stay in L1, and what they add to in L2. */
    const size_t block = frnn_max(OUTER_BLOCK_BYTES / (s->rows * sizeof(real)) / 16, 4) * 16;
    for (size_t first = 0; first < s->m; first += block)
        for (size_t j = 0; j < s->n; j += OUTER_VECTORS * VL)
            for (size_t begin = 0; begin < s->rows; begin += s->chain)
                outer_strip(s, first, frnn_min(first + block, s->m), j, begin);
}

static void add_array(const void *from, void *to, size_t n) {
    for (size_t i = 0; i < n; i += VL) {
        const size_t lanes = frnn_min(VL, n - i);
        real *sum = (real *)to + i;
        vstore_n(sum, vadd(vload_n(sum, lanes), vload_n((const real *)from + i, lanes)), lanes);
    }
}

static void add_product_array(const void *a, const void *b, void *to, size_t n) {
    for (size_t i = 0; i < n; i += VL) {
        const size_t lanes = frnn_min(VL, n - i);
        real *sum = (real *)to + i;
        const vreal x = vload_n((const real *)a + i, lanes),
                    y = vload_n((const real *)b + i, lanes);
        vstore_n(sum, vfma(x, y, vload_n(sum, lanes)), lanes);
    }
}
