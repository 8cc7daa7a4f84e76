/* SPDX-License-Identifier: MIT
 *
 * The product: rows of a times packed panels. One micro-kernel, `tile`, and the loops around it.
 *
 * Each element of the result is one chain of fused multiply-adds over ascending k. Tiles, pieces
 * of k and the order of rows and panels decide when a chain advances, never its value.
 */

#define VECTORS (FRNN_BLOCK / VL) /* of a panel */

/* The most rows of a tile, and for each number of rows the most panels: the accumulators leave
 * registers for a row of weights, and at least 8 chains (two ports, latency four) are in flight
 * where rows and panels suffice. AVX-512 has 32 registers, AVX2 16. */
#if defined(FRNN_ISA_AVX512) && defined(FRNN_REAL_F32)
#define TILE_ROWS         6
#define TILE_PANELS(rows) ((rows) < 3 ? 12 : (rows) == 3 ? 8 : 4)
#elif defined(FRNN_ISA_AVX512)
#define TILE_ROWS         6
#define TILE_PANELS(rows) ((rows) == 1 ? 8 : (rows) < 4 ? 4 : 2)
#elif defined(FRNN_ISA_AVX2) && defined(FRNN_REAL_F32)
#define TILE_ROWS         6
#define TILE_PANELS(rows) ((rows) == 1 ? 4 : (rows) < 4 ? 2 : 1)
#elif defined(FRNN_ISA_AVX2)
#define TILE_ROWS         3
#define TILE_PANELS(rows) ((rows) == 1 ? 2 : 1)
#else
#define TILE_ROWS         1
#define TILE_PANELS(rows) 1
#endif

/* The panels of a tile lie in one block or are those of whole blocks; with one gate each is in a
 * block of its own, and more than 8 streams of memory would not pay. With three gates a tile has
 * one panel or those of 1, 2, 3 or 4 blocks. */
#define TILE_LEGAL(rows, panels, gates)                                                            \
    ((rows) <= TILE_ROWS && (panels) <= TILE_PANELS(rows) &&                                       \
     ((gates) == 3 || (panels) % 3 != 0 || (panels) == 12) &&                                      \
     ((gates) % (panels) == 0 || ((panels) % (gates) == 0 && (panels) <= 8 * (gates))))

/* Bytes of weights that all rows pass over before the next: about what the first cache holds. */
#define K_PIECE_BYTES 32768

typedef struct product {
    size_t rows;
    const real *a; /* [rows][k] */
    ptrdiff_t a_row;
    const real *w;  /* [blocks][k][gates][16] */
    size_t w_block; /* elements from block to block */
    size_t k;
    const real *init; /* [rows][panels][16]: what the chains start from */
    ptrdiff_t init_row;
    const real *add; /* as out: to be added at the end, or NULL */
    real *out;       /* [rows][blocks][slots][16] */
    ptrdiff_t out_row;
    size_t out_block;     /* elements from block to block */
    size_t last_shift;    /* elements by which the last gate of a block lies farther */
    int apart;            /* nothing is added to the last gate */
    const char *ahead;    /* memory that is needed soon: AHEAD_LINES lines are fetched for each k */
    ptrdiff_t ahead_step; /* bytes from k to k; 0 where there is nothing to fetch */
} product;

#define LINE        64
#define AHEAD_LINES 2

/* The first `rows` rows and `panels` panels of a product; rows, panels and gates are constants
 * where this is called, so that every loop but that over k unrolls. */
INLINE void tile(const int rows, const int panels, const int gates, const product *p) {
    enum { WIDTH = TILE_PANELS(1) * VECTORS };
    const int width = panels * VECTORS, blocks = panels > gates ? panels / gates : 1;
    const real *a = p->a, *w[TILE_PANELS(1)]; /* one stream of weights per block */
    const ptrdiff_t a_row = p->a_row, ahead_step = p->ahead_step;
    const char *ahead = p->ahead;
    vreal sum[TILE_ROWS][WIDTH];
    UNROLL for (int b = 0; b < blocks; b++) w[b] = p->w + (size_t)b * p->w_block;
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < width; v++) sum[r][v] =
            vload(p->init + r * p->init_row + v * VL);
    }
    for (size_t k = p->k; k > 0; k--) {
        vreal weight[WIDTH];
        if (rows > 1) { /* a single row waits for weights in any case */
            vprefetch(ahead);
            vprefetch(ahead + LINE);
            ahead += ahead_step;
        }
        UNROLL for (int v = 0; v < width; v++) {
            const int panel = v / VECTORS;
            weight[v] = vload(w[panel / gates] + panel % gates * FRNN_BLOCK + v % VECTORS * VL);
        }
        UNROLL for (int r = 0; r < rows; r++) {
            const vreal factor = vset1(a[r * a_row]);
            UNROLL for (int v = 0; v < width; v++) sum[r][v] = vfma(factor, weight[v], sum[r][v]);
        }
        a += 1;
        UNROLL for (int b = 0; b < blocks; b++) w[b] += gates * FRNN_BLOCK;
    }
    UNROLL for (int r = 0; r < rows; r++) {
        UNROLL for (int v = 0; v < width; v++) {
            const int panel = v / VECTORS, last = panels >= gates && panel % gates == gates - 1;
            ptrdiff_t at = r * p->out_row + v * VL;
            if (gates < 4) /* blocks may have a slot more than that */
                at = r * p->out_row + (ptrdiff_t)((size_t)(panel / gates) * p->out_block) +
                     panel % gates * FRNN_BLOCK + v % VECTORS * VL +
                     (gates == 3 && last ? (ptrdiff_t)p->last_shift : 0);
            vreal value = sum[r][v];
            if (p->add != NULL && !(gates < 4 && last && p->apart))
                value = vadd(vload(p->add + at), value);
            vstore(p->out + at, value);
        }
    }
}

INLINE int tile_fits(const int gates, size_t rows, size_t panels, size_t width) {
    (void)rows; /* where all heights have one width */
    return width <= panels && width <= (size_t)TILE_PANELS(rows) &&
           TILE_LEGAL(1, width, (size_t)gates);
}

/* The widest legal tile for that many panels. 12 are taken only where they are all: even steps beat
 * a wide one and a rest. Of three gates they are taken where they fit: 6 are few chains. */
INLINE size_t tile_panels(const int gates, size_t rows, size_t panels) {
    if (gates == 3) {
        for (size_t width = 12; width > 1; width -= 3)
            if (tile_fits(gates, rows, panels, width))
                return width;
        return 1;
    }
    if (panels == 12 && tile_fits(gates, rows, panels, 12))
        return 12;
    if (tile_fits(gates, rows, panels, 8))
        return 8;
    if (tile_fits(gates, rows, panels, 4))
        return 4;
    return tile_fits(gates, rows, panels, 2) ? 2 : 1;
}

/* Calls the tile of that size. */
INLINE void tile_choose(const int gates, size_t rows, size_t panels, const product *p) {
    switch (rows * 32 + panels) {
#define CASE(rows, panels)                                                                         \
    case (rows) * 32 + (panels):                                                                   \
        if (TILE_LEGAL(rows, panels, gates))                                                       \
            tile(TILE_LEGAL(rows, panels, gates) ? (rows) : 1,                                     \
                 TILE_LEGAL(rows, panels, gates) ? (panels) : 1, gates, p);                        \
        break;
#define CASES(rows)                                                                                \
    CASE(rows, 1)                                                                                  \
    CASE(rows, 2) CASE(rows, 3) CASE(rows, 4) CASE(rows, 6) CASE(rows, 8) CASE(rows, 9)
        /* clang-format off */
        CASES(1) CASES(2) CASES(3) CASES(4) CASES(5) CASES(6)
        CASE(1, 12) CASE(2, 12)
    default:
        break;
        /* clang-format on */
#undef CASES
#undef CASE
    }
}

/* Not inlined: the tiles need the registers for themselves. */
NOINLINE void tile_1(size_t rows, size_t panels, const product *p) {
    tile_choose(1, rows, panels, p);
}

NOINLINE void tile_2(size_t rows, size_t panels, const product *p) {
    tile_choose(2, rows, panels, p);
}

NOINLINE void tile_3(size_t rows, size_t panels, const product *p) {
    tile_choose(3, rows, panels, p);
}

NOINLINE void tile_4(size_t rows, size_t panels, const product *p) {
    tile_choose(4, rows, panels, p);
}

INLINE void tile_call(const int gates, size_t rows, size_t panels, const product *p) {
    switch (gates) {
    case 1:
        tile_1(rows, panels, p);
        break;
    case 2:
        tile_2(rows, panels, p);
        break;
    case 3:
        tile_3(rows, panels, p);
        break;
    default:
        tile_4(rows, panels, p);
    }
}

/* What a chain without a bias starts from, for the widest group. */
static const real zeros[TILE_PANELS(1) * FRNN_BLOCK < 64 ? 64 : TILE_PANELS(1) * FRNN_BLOCK];

/* How many panels of `panels` are worked on together, so that all their gates of whole blocks
 * are complete at the end. */
INLINE size_t group_panels(const int gates, size_t rows, size_t panels) {
    size_t widest = tile_panels(gates, frnn_min(rows, TILE_ROWS), panels);
    return widest < (size_t)gates ? (size_t)gates : widest;
}

/* Moves a product behind panels of the group: whole blocks, or some of the panels of its only one,
 * of which the last gate may lie farther. */
INLINE void product_advance(const int gates, product *p, size_t panel, size_t width) {
    const size_t part = width < (size_t)gates, blocks = part ? 0 : width / (size_t)gates;
    size_t out = part ? width * FRNN_BLOCK : blocks * p->out_block;
    if (gates == 3 && part && panel + 2 == (size_t)gates)
        out += p->last_shift;
    p->w += part ? width * FRNN_BLOCK : blocks * p->w_block;
    p->init += width * FRNN_BLOCK;
    p->out += out;
    if (p->add != NULL)
        p->add += out;
}

/* Tiles of `height` rows over all panels of a group; p is used up. */
INLINE void product_rows(const int gates, product *p, size_t height, size_t panels) {
    for (size_t panel = 0; panel < panels;) {
        const size_t width = tile_panels(gates, height, panels - panel);
        if (gates == 3 && width == 1 && panel + 1 == (size_t)gates && p->apart) {
            product last = *p;
            last.add = NULL;
            tile_call(gates, height, width, &last);
        } else {
            tile_call(gates, height, width, p);
        }
        product_advance(gates, p, panel, width);
        panel += width;
    }
}

/* One group of panels of a product: pieces of k, so that the weights come from L1 for all rows but
 * the first few; in a piece, tiles of rows of equal height. The tiles of one piece fetch the
 * weights of the next. `partial` ([rows][FRNN_PARTIAL]) takes the sums between pieces; it is not
 * touched when one tile holds all rows. `whole` is used up. */
INLINE void product_group(const int gates, product *whole, size_t panels, real *partial) {
    const size_t rows = whole->rows, tiles = (rows - 1) / TILE_ROWS + 1;
    if (tiles == 1) {
        whole->ahead = (const char *)whole->w;
        whole->ahead_step = 0;
        product_rows(gates, whole, rows, panels);
        return;
    }
    const size_t row_bytes = panels * FRNN_BLOCK * sizeof(real);
    const size_t length = frnn_max(K_PIECE_BYTES / row_bytes, 1);
    const size_t k_size = (size_t)gates * FRNN_BLOCK;
    size_t begin = 0;
    do {
        const size_t end = frnn_min(begin + length, whole->k);
        product p = *whole;
        p.k = end - begin;
        p.w += begin * k_size;
        if (begin > 0) {
            p.init = partial;
            p.init_row = FRNN_PARTIAL;
        }
        if (end < whole->k) {
            p.add = NULL;
            p.out = partial;
            p.out_row = FRNN_PARTIAL;
            p.out_block = k_size;
            p.last_shift = 0;
        }
        /* The next piece follows in each block, or begins the next group; to be fetched evenly. */
        p.ahead = (const char *)(p.w + p.k * k_size);
        p.ahead_step = (ptrdiff_t)frnn_min((row_bytes - 1) / tiles + 1, AHEAD_LINES * LINE);
        size_t row = 0;
        for (size_t t = 0; t < tiles; t++) {
            const size_t height = rows / tiles + (t < rows % tiles);
            product q = p;
            q.a += (ptrdiff_t)row * p.a_row + (ptrdiff_t)begin;
            q.init += (ptrdiff_t)row * p.init_row;
            q.out += (ptrdiff_t)row * p.out_row;
            if (q.add != NULL)
                q.add += (ptrdiff_t)row * p.out_row;
            q.ahead += (ptrdiff_t)(t * p.k) * p.ahead_step;
            product_rows(gates, &q, height, panels);
            row += height;
        }
        begin = end;
    } while (begin < whole->k);
}

/* frnn_kernels.project for one number of gates. */
INLINE void project_gates(const int gates, const frnn_project *s) {
    const size_t panels = s->blocks * (size_t)gates;
    const size_t shift = s->apart ? FRNN_BLOCK : 0;
    product p = {
        .rows = s->rows,
        .a = s->a,
        .a_row = s->a_row,
        .w = s->w,
        .w_block = s->k * (size_t)gates * FRNN_BLOCK,
        .k = s->k,
        .init = s->bias,
        .init_row = 0,
        .out = s->out,
        .out_row = s->out_row,
        .out_block = (size_t)gates * FRNN_BLOCK + shift,
        .last_shift = shift,
    };
    for (size_t panel = 0; panel < panels;) {
        const size_t width = group_panels(gates, s->rows, panels - panel);
        product group = p;
        product_group(gates, &group, width, s->partial);
        panel += width;
        p.w += width / (size_t)gates * p.w_block;
        p.init += width * FRNN_BLOCK;
        p.out += width / (size_t)gates * p.out_block;
    }
}

static void project(const frnn_project *s) {
    switch (s->gates) {
    case 1:
        project_gates(1, s);
        break;
    case 2:
        project_gates(2, s);
        break;
    case 3:
        project_gates(3, s);
        break;
    default:
        project_gates(4, s);
    }
}

/* What is the same in all pieces of a recurrent product of a step, for a group of blocks that
 * starts at `block`: added to or put into the gates, `gates` of them from slot `first` on, of
 * `slots`. */
INLINE product recur_product(const int gates, const int slots, const int first, const frnn_step *s,
                             const void *weights, const frnn_piece *piece, size_t past_row,
                             size_t block) {
    const size_t panel = (size_t)gates * FRNN_BLOCK, out_block = (size_t)slots * FRNN_BLOCK;
    real *const out = (real *)s->gates + s->row_begin * s->gates_row + block * out_block +
                      (size_t)first * FRNN_BLOCK;
    const product p = {
        .rows = s->row_end - s->row_begin,
        .a = (const real *)piece->past + s->row_begin * past_row,
        .a_row = (ptrdiff_t)past_row,
        .w = (const real *)weights + block * s->recurrent_size * panel,
        .w_block = s->recurrent_size * panel,
        .k = piece->k,
        .init = zeros,
        .init_row = 0,
        .add = out,
        .out = out,
        .out_row = (ptrdiff_t)s->gates_row,
        .out_block = out_block,
        .apart = first + gates == slots - 1,
    };
    return p;
}

/* Piece after piece: the chains go on from where they stand. */
INLINE void recur_pieces(const int gates, const int slots, const int first, const frnn_step *s,
                         const void *weights, const frnn_piece *pieces, size_t past_row,
                         size_t block, size_t panels) {
    const size_t panel = (size_t)gates * FRNN_BLOCK;
    real *const partial = (real *)s->partial + s->row_begin * FRNN_PARTIAL;
    const product whole =
        recur_product(gates, slots, first, s, weights, &pieces[0], past_row, block);
    const real *w = whole.w, *init = zeros;
    size_t init_row = 0;
    if (s->start != NULL) {
        init = (const real *)s->start + s->row_begin * s->sums_row + block * panel;
        init_row = s->sums_row;
    }
    for (size_t i = 0; i < s->num_pieces; i++) {
        product p = whole;
        p.a = (const real *)pieces[i].past + s->row_begin * past_row;
        p.w = w;
        p.k = pieces[i].k;
        p.init = init;
        p.init_row = (ptrdiff_t)init_row;
        if (i + 1 < s->num_pieces) {
            real *sums = partial;
            size_t sums_row = p.rows > TILE_ROWS ? FRNN_PARTIAL : panels * FRNN_BLOCK;
            if (pieces[i].sums != NULL) {
                sums = (real *)pieces[i].sums + s->row_begin * s->sums_row + block * panel;
                sums_row = s->sums_row;
            }
            p.add = NULL;
            p.out = sums;
            p.out_row = (ptrdiff_t)sums_row;
            p.out_block = panel;
            init = sums;
            init_row = sums_row;
        }
        product_group(gates, &p, panels, partial);
        w += pieces[i].k * panel;
    }
}

/* The one piece of a plain net. */
INLINE void recur_whole(const int gates, const int slots, const int first, const frnn_step *s,
                        const void *weights, const frnn_piece *piece, size_t past_row, size_t block,
                        size_t panels) {
    product p = recur_product(gates, slots, first, s, weights, piece, past_row, block);
    product_group(gates, &p, panels, (real *)s->partial + s->row_begin * FRNN_PARTIAL);
}
