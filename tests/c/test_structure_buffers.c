/* SPDX-License-Identifier: MIT
 *
 * What the C library refuses of nets with time structures: buffers of another structure, clocks of
 * nets without, stretches that are cut within a visit, sizes that do not fit.
 */
#define _DEFAULT_SOURCE /* mmap */

#include "structure_check.h"

/* ---- Buffers -------------------------------------------------------------------------------- */

/* Nets that differ from `net` in its time structure alone; 0 if there is no such number. */
static int other_structure(frnn_config *net, int number) {
    frnn_config others[8];
    size_t count = 0;
    for (size_t i = 0; i < 6; i++)
        others[i] = *net;
    if (net->num_groups > 0) {
        others[count++].periods[0]++;
        others[count++].full = !net->full;
        others[count].group_sizes[0]++;
        others[count++].group_sizes[1]--;
        others[count++].num_groups = 0;
        others[count - 1].full = 0;
    } else {
        others[count++].delays[net->num_delays - 1]++;
        others[count++].fractions[0] = 0.25;
        others[count++].num_delays = 0;
    }
    if (net->mask_blocks > 0)
        others[count++].mask_blocks++;
    if ((size_t)number < count)
        *net = others[number];
    return (size_t)number < count;
}

/* Every buffer has to have the size that is asked for. */
static void check_space(const task *t, const frnn_run *run, const frnn_back *back) {
    const problem *p = &t->p;
    const frame *const packed = &p->packed, *const packed_back = &t->packed_back;
    size_t scratch = 0, back_scratch = 0;
    CHECK(frnn_scratch_size(&p->net, run->steps, run->batch, &scratch) == FRNN_OK);
    CHECK(frnn_backward_scratch_size(&p->net, run->steps, run->batch, &back_scratch) == FRNN_OK);
    frnn_run runs[] = {*run, *run, *run};
    runs[0].state_size--;
    runs[1].scratch_size = scratch - 1;
    runs[2].saved_size--;
    for (size_t i = 0; i < COUNT(runs); i++)
        CHECK(frnn_forward(&p->net, packed->at, packed->size, &runs[i]) == FRNN_E_SPACE);
    CHECK(frnn_forward(&p->net, packed->at, packed->size - 1, run) == FRNN_E_SPACE);
    frnn_back backs[] = {*back, *back, *back};
    backs[0].adjoint_size--;
    backs[1].scratch_size = back_scratch - 1;
    backs[2].saved_size--;
    for (size_t i = 0; i < COUNT(backs); i++)
        CHECK(frnn_backward(&p->net, packed_back->at, packed_back->size, &backs[i]) ==
              FRNN_E_SPACE);
    CHECK(frnn_backward(&p->net, packed_back->at, packed_back->size - 1, back) == FRNN_E_SPACE);
}

/* A large buffer that holds what another net has put there. */
static void check_strangers(const frnn_config *given) {
    const task t = task_new(given, 4, 2, 1);
    const problem *p = &t.p;
    frnn_config other = p->net;
    size_t scratch = 0, saved = 0, adjoint = 0;
    CHECK(frnn_scratch_size(&p->net, 4, 2, &scratch) == FRNN_OK);
    CHECK(frnn_saved_size(&p->net, 4, 2, &saved) == FRNN_OK);
    CHECK(frnn_adjoint_size(&p->net, 4, 2, &adjoint) == FRNN_OK);
    const size_t most = 1 << 16;
    const frame buffer = frame_new(most, FRNN_ALIGN), space = frame_new(most, FRNN_ALIGN);
    const frame state = state_new(p, 2, &p->start), keep = frame_new(saved, FRNN_ALIGN);
    const frame grad = frame_new(adjoint, FRNN_ALIGN), y = frame_new(8 * p->width * p->items, 8);
    void *const x = memory(8 * 20 * p->items);
    memset(x, 0, 8 * 20 * p->items);
    CHECK(frnn_adjoint_reset(&p->net, 4, 2, grad.at, adjoint) == FRNN_OK);
    frnn_run run = FRNN_RUN(&p->net, 4, 2, x, y.at, state.at, state.size, space.at, most);
    run.saved = keep.at, run.saved_size = saved;
    CHECK(frnn_forward(&p->net, p->packed.at, p->packed.size, &run) == FRNN_OK);
    frnn_back back =
        FRNN_BACK(&p->net, 4, 2, x, NULL, NULL, keep.at, saved, grad.at, adjoint, space.at, most);
    frame_protect(&state, PROT_READ);
    frame_protect(&grad, PROT_READ);
    frame_protect(&y, PROT_READ);
    check_space(&t, &run, &back);
    for (int i = 0; other_structure(&other, i); i++, other = p->net) {
        problem q = problem_new(&other, 4, 2, 1);
        void *const values = memory(4096);
        unsigned long long clocks[2] = {1, 2};
        say_net(&q.net, 4, 2, "another");
        q.net.mask_blocks = other.mask_blocks;
        if (other.mask_blocks > 0 && other.num_groups == 0) /* as many as in any mask */
            memset(q.mask[0], 0, 400);
        CHECK(frnn_pack(&q.net, q.given, buffer.at, most) == FRNN_OK);
        CHECK(frnn_forward(&p->net, buffer.at, most, &run) == FRNN_E_ARG);
        CHECK(frnn_state_reset(&q.net, 2, buffer.at, most) == FRNN_OK);
        frnn_run bad = run;
        bad.state = buffer.at, bad.state_size = most;
        CHECK(frnn_forward(&p->net, p->packed.at, p->packed.size, &bad) == FRNN_E_ARG);
        CHECK(frnn_state_get(&p->net, 2, buffer.at, most, 0, values) == FRNN_E_ARG);
        CHECK(frnn_state_set(&p->net, 2, buffer.at, most, 0, values) == FRNN_E_ARG);
        CHECK(frnn_state_get_clock(&p->net, 2, buffer.at, most, clocks) == FRNN_E_ARG);
        CHECK(frnn_state_set_clock(&p->net, 2, buffer.at, most, clocks) == FRNN_E_ARG);
        CHECK(clocks[0] == 1 && clocks[1] == 2);
        CHECK(frnn_pack_back(&q.net, q.given, buffer.at, most) == FRNN_OK);
        CHECK(frnn_backward(&p->net, buffer.at, most, &back) == FRNN_E_ARG);
        CHECK(frnn_adjoint_reset(&q.net, 4, 2, buffer.at, most) == FRNN_OK);
        frnn_back worse = back;
        worse.adjoint = buffer.at, worse.adjoint_size = most;
        CHECK(frnn_backward(&p->net, t.packed_back.at, t.packed_back.size, &worse) == FRNN_E_ARG);
        CHECK(frnn_adjoint_get(&p->net, 4, 2, buffer.at, most, 0, values) == FRNN_E_ARG);
        const frame own = state_new(&q, 2, &q.start);
        const frame packed = frame_new(most, FRNN_ALIGN);
        CHECK(frnn_pack(&q.net, q.given, packed.at, most) == FRNN_OK);
        bad.state = own.at, bad.state_size = own.size;
        bad.saved = buffer.at, bad.saved_size = most;
        void *const out = memory(8 * q.width * q.items);
        bad.y = out;
        CHECK(frnn_forward(&q.net, packed.at, most, &bad) == FRNN_OK);
        worse = back;
        worse.saved = buffer.at, worse.saved_size = most;
        CHECK(frnn_backward(&p->net, t.packed_back.at, t.packed_back.size, &worse) == FRNN_E_ARG);
        frame_free(&packed);
        frame_free(&own);
        frame_free(&q.packed);
    }
    frame_protect(&y, PROT_READ | PROT_WRITE);
    const frame frames[] = {state, keep, grad, y};
    for (size_t i = 0; i < COUNT(frames); i++)
        frame_free(&frames[i]);
    munmap(buffer.map, buffer.room + 2 * page);
    munmap(space.map, space.room + 2 * page);
    task_free(&t);
    memory_free();
}

/* Clocks of nets that have none, or that are given none. */
static void check_clocks(frnn_cell cell) {
    const frnn_config plain_net = net_new(cell), net = with_clocks(cell);
    const problem p = problem_new(&plain_net, 0, 2, 1), q = problem_new(&net, 0, 2, 1);
    const frame state = state_new(&p, 2, &p.start), clocked = state_new(&q, 2, &q.start);
    unsigned long long clocks[2] = {1, 2};
    snprintf(where, sizeof where, "%s: clocks", p.cell->name);
    frame_protect(&state, PROT_READ);
    frame_protect(&clocked, PROT_READ);
#define CLOCK(expected, net, batch, at, size, clock)                                               \
    do {                                                                                           \
        CHECK(frnn_state_get_clock(net, batch, at, size, clock) == (expected));                    \
        CHECK(frnn_state_set_clock(net, batch, at, size, clock) == (expected));                    \
    } while (0)
    CLOCK(FRNN_E_ARG, &p.net, 2, state.at, state.size, clocks);
    CLOCK(FRNN_E_ARG, NULL, 2, clocked.at, clocked.size, clocks);
    CLOCK(FRNN_E_ARG, &q.net, 2, clocked.at, clocked.size, NULL);
    CLOCK(FRNN_E_ARG, &q.net, 2, NULL, clocked.size, clocks);
    CLOCK(FRNN_E_ARG, &q.net, 1, clocked.at, clocked.size, clocks);
    CLOCK(FRNN_E_ALIGN, &q.net, 2, clocked.at + 8, clocked.size, clocks);
    CLOCK(FRNN_E_SPACE, &q.net, 2, clocked.at, clocked.size - 1, clocks);
    CLOCK(FRNN_E_SIZE, &q.net, SIZE_MAX / 8, clocked.at, clocked.size, clocks);
    CHECK(clocks[0] == 1 && clocks[1] == 2);
    frame_free(&state);
    frame_free(&clocked);
    frame_free(&p.packed);
    frame_free(&q.packed);
    size_t size = 0; /* of no rows */
    CHECK(frnn_state_size(&net, 0, &size) == FRNN_OK);
    const frame none = frame_new(size, FRNN_ALIGN);
    CHECK(frnn_state_reset(&net, 0, none.at, size) == FRNN_OK);
    CLOCK(FRNN_OK, &net, 0, none.at, size, NULL);
    frame_free(&none);
    memory_free();
}

/* ---- Training ------------------------------------------------------------------------------- */

/* A backward of `steps` of `total` steps after a forward of as many; buffers that are refused are
 * write-protected. */
static frnn_status backward_of(const task *t, size_t steps, size_t total, const frame *adjoint) {
    const problem *p = &t->p;
    size_t size = 0, scratch = 0, forward_scratch = 0;
    CHECK(frnn_saved_size(&p->net, steps, 1, &size) == FRNN_OK);
    CHECK(frnn_backward_scratch_size(&p->net, steps, 1, &scratch) == FRNN_OK);
    CHECK(frnn_scratch_size(&p->net, steps, 1, &forward_scratch) == FRNN_OK);
    const frame saved = frame_new(size, FRNN_ALIGN), space = frame_new(scratch, FRNN_ALIGN);
    const frame forward_space = frame_new(forward_scratch, FRNN_ALIGN);
    const frame state = state_new(p, 1, &p->start);
    void *const y = memory(steps * p->width * p->items);
    void *const x = memory(steps * p->net.input_size * p->items);
    put(p->items, x, p->x, steps * p->net.input_size);
    frnn_run run =
        FRNN_RUN(&p->net, steps, 1, x, y, state.at, state.size, forward_space.at, forward_scratch);
    run.saved = saved.at, run.saved_size = size;
    CHECK(frnn_forward(&p->net, p->packed.at, p->packed.size, &run) == FRNN_OK);
    frnn_back back = FRNN_BACK(&p->net, steps, 1, x, NULL, NULL, saved.at, size, adjoint->at,
                               adjoint->size, space.at, scratch);
    back.total_steps = total;
    frame_protect(&saved, PROT_READ);
    const frnn_status status =
        frnn_backward(&p->net, t->packed_back.at, t->packed_back.size, &back);
    if (status != FRNN_OK)
        CHECK(filled(space.at, space.size));
    const frame frames[] = {saved, space, forward_space, state};
    for (size_t i = 0; i < COUNT(frames); i++)
        frame_free(&frames[i]);
    return status;
}

static frame adjoint_of(const task *t, size_t total) {
    size_t size = 0;
    CHECK(frnn_adjoint_size(&t->p.net, total, 1, &size) == FRNN_OK);
    const frame f = frame_new(size, FRNN_ALIGN);
    CHECK(frnn_adjoint_reset(&t->p.net, total, 1, f.at, size) == FRNN_OK);
    return f;
}

/* Fractions only go forward. */
static void check_fractions(frnn_cell cell) {
    static const size_t three[] = {2, 3, 8};
    for (size_t i = 0; i < (cell == FRNN_CELL_MINGRU ? 1 : 3); i++) {
        frnn_config net = with_delays(cell, cell == FRNN_CELL_MINGRU ? 1 : 3, three);
        net.fractions[i] = 0.125;
        const task t = task_new(&net, 5, 1, 1);
        say_net(&net, 5, 1, "fractions");
        const frame adjoint = adjoint_of(&t, 5);
        frame_protect(&adjoint, PROT_READ);
        CHECK(backward_of(&t, 5, 5, &adjoint) == FRNN_E_ARG);
        frame_free(&adjoint);
        task_free(&t);
        memory_free();
    }
}

/* Stretches are whole visits, but for that at the beginning of the sequence. */
static void check_stretches(frnn_cell cell) {
    static const size_t one[] = {3}, multiples[] = {3, 6}, others[] = {3, 7}, stack[] = {2, 3};
    frnn_config nets[] = {with_delays(cell, 1, one), with_delays(cell, 2, stack),
                          with_delays(cell, 2, multiples), with_delays(cell, 2, others)};
    const size_t units[] = {3, 6, 3, 1};
    nets[1].num_layers = 2;
    nets[1].dilated = 1;
    for (size_t n = 0; n < (cell == FRNN_CELL_MINGRU ? 2 : COUNT(nets)); n++) {
        const task t = task_new(&nets[n], 16, 1, 1);
        say_net(&nets[n], 16, 1, "stretches");
        for (size_t steps = 1; steps < 16; steps++) {
            const frame adjoint = adjoint_of(&t, 16);
            const int whole = steps % units[n] == 0;
            frame_protect(&adjoint, whole ? PROT_READ | PROT_WRITE : PROT_READ);
            CHECK(backward_of(&t, steps, 16, &adjoint) == (whole ? FRNN_OK : FRNN_E_ARG));
            if (whole) /* the rest, at the beginning */
                CHECK(backward_of(&t, 16 - steps, 16, &adjoint) == FRNN_OK);
            frame_free(&adjoint);
        }
        CHECK(frnn_checkpoint_unit(&nets[n], 1) % units[n] == 0);
        task_free(&t);
        memory_free();
    }
}

/* ---- Sizes ---------------------------------------------------------------------------------- */

/* Whatever depends on rows is too large; size is not changed. */
static void check_large(const frnn_config *net, size_t batch) {
    size_t size = 77;
    snprintf(where, sizeof where, "%s, %zu rows", frnn_cell_get(net->cell)->name, batch);
    CHECK(frnn_state_size(net, batch, &size) == FRNN_E_SIZE);
    CHECK(frnn_scratch_size(net, 1, batch, &size) == FRNN_E_SIZE);
    CHECK(frnn_ragged_scratch_size(net, 1, batch, &size) == FRNN_E_SIZE);
    CHECK(frnn_saved_size(net, 1, batch, &size) == FRNN_E_SIZE);
    CHECK(frnn_adjoint_size(net, 1, batch, &size) == FRNN_E_SIZE);
    CHECK(frnn_backward_scratch_size(net, 1, batch, &size) == FRNN_E_SIZE);
    CHECK(frnn_ragged_backward_scratch_size(net, 1, batch, &size) == FRNN_E_SIZE);
    CHECK(size == 77);
}

static void check_sizes(frnn_cell cell) {
    static const size_t longest[FRNN_MAX_DELAYS] = {UINT32_MAX}, far[] = {1, UINT32_MAX};
    frnn_config net = with_delays(cell, 1, longest);
    size_t size = 0;
    for (size_t i = 0; i < 12; i++)
        check_large(&net, SIZE_MAX >> i);
    for (size_t i = 1; i < 40; i++)
        check_large(&net, ((size_t)1 << 32) * i + i % 2);
    CHECK(frnn_state_size(&net, 1, &size) == FRNN_OK && size > 20 * (size_t)UINT32_MAX);
    CHECK(frnn_packed_size(&net, &size) == FRNN_OK && size < 1 << 20);
    CHECK(frnn_checkpoint_unit(&net, 1) % UINT32_MAX == 0);
    CHECK(frnn_checkpoint_unit(&net, SIZE_MAX) == SIZE_MAX);
    if (cell != FRNN_CELL_MINGRU) {
        net = with_delays(cell, 2, far);
        for (size_t i = 0; i < 12; i++)
            check_large(&net, SIZE_MAX >> i);
        net = net_new(cell);
        for (size_t i = 0; i < 4; i++) {
            size = 77;
            net.mask_blocks = SIZE_MAX >> i;
            CHECK(frnn_packed_size(&net, &size) == FRNN_E_SIZE);
            CHECK(frnn_packed_back_size(&net, &size) == FRNN_E_SIZE);
            CHECK(size == 77);
        }
    }
    net = net_new(cell); /* dilations without a common multiple that fits */
    net.dilated = 1;
    net.num_layers = net.num_delays = 4;
    for (size_t i = 0; i < 4; i++)
        net.delays[i] = UINT32_MAX - i;
    CHECK(frnn_config_check(&net) == FRNN_OK && frnn_checkpoint_unit(&net, 1) == SIZE_MAX);
    if (cell == FRNN_CELL_GRU_RESET_BEFORE)
        return;
    net = with_clocks(cell);
    for (size_t i = 0; i < 8; i++)
        check_large(&net, SIZE_MAX >> i);
    for (size_t i = 1; i < 32; i++) { /* huge groups */
        size = 77;
        net.hidden_size = SIZE_MAX >> i;
        net.group_sizes[2] = net.hidden_size - 13;
        CHECK(frnn_config_check(&net) == FRNN_OK);
        const int square = cell != FRNN_CELL_MINGRU || i < 6;
        CHECK(!square || frnn_packed_size(&net, &size) == FRNN_E_SIZE);
        CHECK(!square || frnn_packed_back_size(&net, &size) == FRNN_E_SIZE);
        if (i < 6) {
            CHECK(frnn_state_size(&net, 1, &size) == FRNN_E_SIZE);
            CHECK(frnn_scratch_size(&net, 1, 1, &size) == FRNN_E_SIZE);
            CHECK(frnn_saved_size(&net, 1, 1, &size) == FRNN_E_SIZE);
            CHECK(frnn_adjoint_size(&net, 1, 1, &size) == FRNN_E_SIZE);
            CHECK(frnn_backward_scratch_size(&net, 1, 1, &size) == FRNN_E_SIZE);
        }
        CHECK(size == 77);
    }
}

static void check_cell(frnn_cell cell) {
    static const size_t three[] = {2, 3, 8};
    const int masks = cell != FRNN_CELL_MINGRU;
    check_fractions(cell);
    check_stretches(cell);
    check_sizes(cell);
    frnn_config net = with_delays(cell, masks ? 3 : 1, three);
    check_strangers(&net);
    net.mask_blocks = masks;
    check_strangers(&net);
    if (cell == FRNN_CELL_GRU_RESET_BEFORE)
        return;
    net = with_clocks(cell);
    check_strangers(&net);
    net.mask_blocks = masks;
    check_strangers(&net);
    check_clocks(cell);
}

int main(void) {
    prepare();
    for (int cell = 0; cell < FRNN_CELL_LEAKY; cell++)
        check_cell((frnn_cell)cell);
    return report();
}
