/* SPDX-License-Identifier: MIT
 *
 * Products with a masked recurrent matrix, of which only what the mask leaves is stored (see
 * frnn_lists). The chains are those of the whole matrix without the steps that would add zero.
 */

/* The most chains in flight: of the accumulators of AVX2's 16 registers, AVX-512's 32. */
#if defined(FRNN_ISA_AVX512)
#define LIST_CHAINS 16
#elif defined(FRNN_ISA_AVX2)
#define LIST_CHAINS 8
#else
#define LIST_CHAINS 1
#endif
#define LIST_TILES  8 /* of a row and a block */
#define LIST_BLOCKS 4 /* each has pointers of its own, for which there are registers */

/* The most tiles of so many gates in flight. */
#define LIST_MOST(gates)                                                                           \
    (LIST_CHAINS / ((gates) * VECTORS) < 1            ? 1                                          \
     : LIST_CHAINS / ((gates) * VECTORS) < LIST_TILES ? LIST_CHAINS / ((gates) * VECTORS)          \
                                                      : LIST_TILES)

typedef struct list_product {
    const frnn_piece *pieces;
    size_t num_pieces, row, past_row;
    const uint32_t *columns[LIST_BLOCKS]; /* of each block */
    size_t counts[LIST_BLOCKS];
    const real *w[LIST_BLOCKS];
    real *out[LIST_BLOCKS]; /* of the first row; the sums are added to it */
    size_t out_row;
    int apart; /* the last gate is put there instead */
} list_product;

/* The next block of a list for some rows. */
INLINE void list_step(const int rows, const int width, const real *a, size_t past_row,
                      uint32_t column, const real *w, vreal sum[][4 * VECTORS]) {
    UNROLL for (int r = 0; r < rows; r++) {
        const vreal factor = vset1(a[(size_t)r * past_row + column]);
        UNROLL for (int v = 0; v < width; v++) sum[r][v] =
            vfma(factor, vload(w + v * VL), sum[r][v]);
    }
}

/* `rows` rows of `blocks` blocks from block `first` of the product on, all of them constants. */
INLINE void list_tile(const int rows, const int blocks, const int gates, const list_product *p,
                      size_t first) {
    const int width = gates * VECTORS;
    vreal sum[LIST_TILES][4 * VECTORS]; /* [blocks][rows] */
    const real *w[LIST_BLOCKS];
    const uint32_t *columns[LIST_BLOCKS];
    UNROLL for (int i = 0; i < rows * blocks; i++) {
        UNROLL for (int v = 0; v < width; v++) sum[i][v] = vzero();
    }
    size_t least = p->counts[first];
    UNROLL for (int b = 0; b < blocks; b++) {
        w[b] = p->w[first + (size_t)b];
        columns[b] = p->columns[first + (size_t)b];
        least = frnn_min(least, p->counts[first + (size_t)b]);
    }
    for (size_t i = 0; i < p->num_pieces; i++) {
        const real *const a = (const real *)p->pieces[i].past + p->row * p->past_row;
        for (size_t n = 0; n < least; n++) {
            UNROLL for (int b = 0; b < blocks; b++) {
                list_step(rows, width, a, p->past_row, columns[b][n], w[b], sum + b * rows);
                w[b] += gates * FRNN_BLOCK;
            }
        }
        UNROLL for (int b = 0; b < blocks; b++) { /* what longer lists have more */
            const uint32_t *column = columns[b] + least;
            const uint32_t *const end = columns[b] + p->counts[first + (size_t)b];
            for (; column < end; column++, w[b] += gates * FRNN_BLOCK)
                list_step(rows, width, a, p->past_row, *column, w[b], sum + b * rows);
        }
    }
    UNROLL for (int i = 0; i < rows * blocks; i++) {
        real *out = p->out[first + (size_t)(i / rows)] + (size_t)(i % rows) * p->out_row;
        UNROLL for (int v = 0; v < width; v++) {
            const int put = p->apart && v / VECTORS == gates - 1;
            vstore(out + v * VL, put ? sum[i][v] : vadd(vload(out + v * VL), sum[i][v]));
        }
    }
}

/* The rows of a product of `blocks` blocks: as many at a time as have room for their chains, what
 * is left over with two blocks at a time. `most`, the most tiles in flight, is a constant. */
INLINE void list_rows(const int gates, const int most, size_t blocks, const frnn_step *s,
                      list_product *p) {
    for (size_t height; p->row < s->row_end; p->row += height) {
        const size_t left = s->row_end - p->row;
        height = 1;
        if (most > 1 && left >= (size_t)most) {
            height = (size_t)most;
            for (size_t b = 0; b < blocks; b++)
                list_tile(most, 1, gates, p, b);
        } else if (most > 7 && left >= 4 && blocks == 2) {
            height = 4;
            list_tile(most > 7 ? 4 : 1, 2, gates, p, 0);
        } else if (most > 3 && left >= 2 && blocks == 2) {
            height = 2;
            list_tile(most > 3 ? 2 : 1, 2, gates, p, 0);
        } else if (most > 1 && blocks == 2) {
            list_tile(1, 2, gates, p, 0);
        } else {
            for (size_t b = 0; b < blocks; b++)
                list_tile(1, 1, gates, p, b);
        }
        for (size_t b = 0; b < blocks; b++)
            p->out[b] += height * p->out_row;
    }
}

INLINE void recur_blocks(const int gates, const int slots, const int first, const frnn_step *s,
                         const void *weights, const frnn_piece *pieces, size_t past_row,
                         size_t block, size_t panels) {
    enum { M1 = LIST_MOST(1), M2 = LIST_MOST(2), M3 = LIST_MOST(3), M4 = LIST_MOST(4) };
    const int most = gates == 1 ? M1 : gates == 2 ? M2 : gates == 3 ? M3 : M4;
    const size_t rows = s->row_end - s->row_begin, end = block + panels / (size_t)gates;
    list_product p = {
        .pieces = pieces,
        .num_pieces = s->num_pieces,
        .past_row = past_row,
        .out_row = s->gates_row,
        .apart = first + gates == slots - 1,
    };
    for (size_t blocks; block < end; block += blocks) {
        const int wide = most >= LIST_BLOCKS && rows == 1 && end - block >= LIST_BLOCKS;
        blocks = wide ? LIST_BLOCKS : frnn_min(end - block, 2);
        for (size_t b = 0; b < blocks; b++) {
            const size_t begin = s->lists->begin[block + b];
            p.columns[b] = s->lists->columns + begin;
            p.counts[b] = s->lists->begin[block + b + 1] - begin;
            p.w[b] = (const real *)weights + begin * s->num_pieces * (size_t)gates * FRNN_BLOCK;
            p.out[b] = (real *)s->gates + s->row_begin * s->gates_row +
                       ((block + b) * (size_t)slots + (size_t)first) * FRNN_BLOCK;
        }
        p.row = s->row_begin;
        if (wide)
            list_tile(1, most >= LIST_BLOCKS ? LIST_BLOCKS : 1, gates, &p, 0);
        else
            list_rows(gates, most, blocks, s, &p);
    }
}

/* All units at once, as theirs are the lanes of any block. */
INLINE void recur_lanes(const int gates, const int slots, const int first, const frnn_step *s,
                        const void *weights, const frnn_piece *pieces, size_t past_row) {
    const size_t blocks = (s->hidden_size + FRNN_BLOCK - 1) / FRNN_BLOCK;
    const size_t panel = (size_t)gates * FRNN_BLOCK, slot = (size_t)slots * FRNN_BLOCK;
    const int apart = first + gates == slots - 1;
    for (size_t block = 0; block < blocks; block++) {
        const size_t begin = s->lists->begin[block], count = s->lists->begin[block + 1] - begin;
        const uint16_t *units = s->lists->units + block * FRNN_BLOCK;
        for (size_t row = s->row_begin; row < s->row_end; row++) {
            const real *w = (const real *)weights + begin * s->num_pieces * panel;
            vreal sum[4 * VECTORS];
            real sums[4 * FRNN_BLOCK];
            UNROLL for (int v = 0; v < gates * VECTORS; v++) sum[v] = vzero();
            for (size_t i = 0; i < s->num_pieces; i++) {
                const real *const a = (const real *)pieces[i].past + row * past_row;
                const uint16_t *lanes = s->lists->lanes + begin * FRNN_BLOCK;
                for (size_t n = 0; n < count; n++, lanes += FRNN_BLOCK, w += panel)
                    UNROLL for (int v = 0; v < VECTORS; v++) {
                        const vreal factor = vgather(a, lanes + v * VL);
                        UNROLL for (int g = 0; g < gates; g++) sum[g * VECTORS + v] =
                            vfma(factor, vload(w + g * FRNN_BLOCK + v * VL), sum[g * VECTORS + v]);
                    }
            }
            UNROLL for (int v = 0; v < gates * VECTORS; v++) vstore(sums + v * VL, sum[v]);
            for (int lane = 0; lane < FRNN_BLOCK; lane++) {
                const size_t unit = units[lane];
                real *out = (real *)s->gates + row * s->gates_row + unit / FRNN_BLOCK * slot +
                            (size_t)first * FRNN_BLOCK + unit % FRNN_BLOCK;
                UNROLL for (int g = 0; g < gates; g++, out += FRNN_BLOCK) {
                    const real total = sums[g * FRNN_BLOCK + lane];
                    *out = apart && g == gates - 1 ? total : *out + total;
                }
            }
        }
    }
}

INLINE void recur_lists(const int gates, const int slots, const int first, const frnn_step *s,
                        const void *weights, const frnn_piece *pieces, size_t past_row,
                        size_t block, size_t panels) {
    if (s->lists->lanes != NULL)
        recur_lanes(gates, slots, first, s, weights, pieces, past_row);
    else
        recur_blocks(gates, slots, first, s, weights, pieces, past_row, block, panels);
}

/* ---- Backward ------------------------------------------------------------------------------ */

/* A lane for each unit of a block: what they give is added up when all blocks have given. */
INLINE void lists_back_gates(const int gates, const frnn_lists_back *s) {
    const size_t panel = (size_t)gates * FRNN_BLOCK;
    real *const lanes = s->lanes, *const out = s->out;
    memset(lanes, 0, s->k * FRNN_BLOCK * sizeof(real));
    for (size_t block = 0; block < s->blocks; block++) {
        const size_t begin = s->lists->begin[block], count = s->lists->begin[block + 1] - begin;
        const size_t unit = block * FRNN_BLOCK, units = frnn_min(s->hidden_size - unit, FRNN_BLOCK);
        const real *w = (const real *)s->w + (begin * s->pieces + count * s->piece) * panel;
        vreal a[4 * VECTORS];
        UNROLL for (int g = 0; g < gates; g++) {
            const size_t slot = g == gates - 1 ? s->last : (size_t)g;
            const real *from = (const real *)s->a + slot * s->hidden_size + unit;
            UNROLL for (int v = 0; v < VECTORS; v++) {
                const size_t at = (size_t)v * VL;
                a[g * VECTORS + v] =
                    at < units ? vload_n(from + at, frnn_min(VL, units - at)) : vzero();
            }
        }
        for (size_t n = 0; n < count; n++, w += panel) {
            real *sum = lanes + s->lists->columns[begin + n] * FRNN_BLOCK;
            UNROLL for (int v = 0; v < VECTORS; v++) {
                vreal total = vload(sum + v * VL);
                UNROLL for (int g = 0; g < gates; g++) total =
                    vfma(a[g * VECTORS + v], vload(w + g * FRNN_BLOCK + v * VL), total);
                vstore(sum + v * VL, total);
            }
        }
    }
    for (size_t k = 0; k < s->k; k++) {
        const real *lane = lanes + k * FRNN_BLOCK;
        real half[FRNN_BLOCK / 2];
        for (int i = 0; i < 8; i++)
            half[i] = lane[i] + lane[i + 8];
        for (int width = 4; width > 0; width /= 2)
            for (int i = 0; i < width; i++)
                half[i] += half[i + width];
        out[k] = half[0];
    }
}

static void lists_back(const frnn_lists_back *s) {
    switch (s->gates) {
    case 1:
        lists_back_gates(1, s);
        break;
    case 2:
        lists_back_gates(2, s);
        break;
    case 3:
        lists_back_gates(3, s);
        break;
    default:
        lists_back_gates(4, s);
    }
}

#define LIST_COLUMNS 8

/* One chain of `count` columns of a block for one gate. */
INLINE void lists_outer_tile(const int count, const frnn_lists_outer *s, size_t rows, const real *a,
                             const real *b, const uint32_t *columns, real *c,
                             const unsigned char *mask, size_t units) {
    vreal sum[LIST_COLUMNS][VECTORS];
    UNROLL for (int n = 0; n < count; n++) {
        UNROLL for (int v = 0; v < VECTORS; v++) sum[n][v] = vzero();
    }
    for (size_t r = 0; r < rows; r++, a += s->a_row, b += s->b_row) {
        UNROLL for (int n = 0; n < count; n++) {
            const vreal factor = vset1(b[columns[n]]);
            UNROLL for (int v = 0; v < VECTORS; v++) sum[n][v] =
                vfma(factor, vload(a + v * VL), sum[n][v]);
        }
    }
    UNROLL for (int n = 0; n < count; n++) {
        real lanes[FRNN_BLOCK];
        UNROLL for (int v = 0; v < VECTORS; v++) vstore(lanes + v * VL, sum[n][v]);
        for (size_t unit = 0; unit < units; unit++) {
            const size_t at = unit * s->c_row + columns[n];
            if (mask[at])
                c[at] += lanes[unit];
        }
    }
}

static void lists_outer(const frnn_lists_outer *s) {
    for (size_t begin = 0; begin < s->rows; begin += s->chain) {
        const size_t rows = frnn_min(s->chain, s->rows - begin);
        const real *b = (const real *)s->b + begin * s->b_row;
        for (size_t gate = 0; gate < s->gates; gate++)
            for (size_t block = 0; block < s->blocks; block++) {
                const size_t at = gate * s->hidden_size + block * FRNN_BLOCK;
                const size_t units = frnn_min(s->hidden_size - block * FRNN_BLOCK, FRNN_BLOCK);
                const real *a = (const real *)s->a + begin * s->a_row + at;
                real *c = (real *)s->c + at * s->c_row;
                const unsigned char *mask = s->mask + block * FRNN_BLOCK * s->c_row;
                const uint32_t *columns = s->lists->columns + s->lists->begin[block];
                size_t left = s->lists->begin[block + 1] - s->lists->begin[block];
                for (; left >= LIST_COLUMNS; left -= LIST_COLUMNS, columns += LIST_COLUMNS)
                    lists_outer_tile(LIST_COLUMNS, s, rows, a, b, columns, c, mask, units);
                for (; left > 0; left--, columns++)
                    lists_outer_tile(1, s, rows, a, b, columns, c, mask, units);
            }
    }
}

static void blend(const frnn_blend *s) {
    const vreal fraction = vset1((real)s->fraction);
    for (size_t i = 0; i < s->count; i += VL) {
        const vreal a = vload((const real *)s->a + i), b = vload((const real *)s->b + i);
        vstore((real *)s->out + i, vfma(fraction, vsub(b, a), a));
    }
}
