# The C library as Cython sees it; csrc/fastrnn.h is the manual.

from libc.stdint cimport uint64_t

cdef extern from "internal.h" nogil:
    ctypedef enum frnn_status:
        FRNN_OK, FRNN_E_ARG, FRNN_E_SIZE, FRNN_E_ALIGN, FRNN_E_SPACE, FRNN_E_ISA, FRNN_E_FILE
    ctypedef enum frnn_cell:
        FRNN_CELL_COUNT
    ctypedef enum frnn_activation:
        FRNN_ACTIVATION_COUNT
    ctypedef enum frnn_dtype:
        FRNN_F32, FRNN_F64

    enum:
        FRNN_ALIGN
        FRNN_WEIGHT_COUNT
        FRNN_VERSION_MAJOR
        FRNN_VERSION_MINOR
        FRNN_VERSION_PATCH
        FRNN_MAX_DELAYS
        FRNN_MAX_GROUPS

    ctypedef struct frnn_cell_info:
        const char *name
        size_t gates, apart, states
        int memory, direct, alpha, history

    ctypedef struct frnn_activation_info:
        const char *name

    ctypedef struct frnn_function:
        frnn_activation kind
        double alpha, beta

    ctypedef struct frnn_config:
        size_t struct_size
        frnn_cell cell
        frnn_dtype dtype
        size_t input_size, hidden_size, num_layers, num_directions, proj_size
        int peephole
        double clip, cell_clip
        frnn_function activation, gate_activation, output_activation
        size_t num_delays
        size_t delays[16]
        double fractions[16]
        int dilated
        size_t num_groups
        size_t periods[64]
        size_t group_sizes[64]
        int full
        size_t mask_blocks

    ctypedef struct frnn_part:
        size_t history[2]

    ctypedef struct frnn_weights:
        const void *weight_ih
        const void *weight_hh
        const void *bias_ih
        const void *bias_hh
        const void *alpha
        const void *weight_hr
        const void *peephole
        const void *delayed[15]
        const unsigned char *mask

    ctypedef struct frnn_run:
        size_t struct_size, steps, batch
        const void *x
        ptrdiff_t x_step, x_row
        void *y
        ptrdiff_t y_step, y_row
        void *state
        size_t state_size
        void *scratch
        size_t scratch_size
        int parallel_time
        void *saved
        size_t saved_size
        const size_t *lengths
        const unsigned char *reset

    ctypedef struct frnn_gradients:
        void *weight_ih
        void *weight_hh
        void *bias_ih
        void *bias_hh
        void *alpha
        void *weight_hr
        void *peephole
        void *delayed[15]

    ctypedef struct frnn_back:
        size_t struct_size, steps, total_steps, batch
        const void *x
        ptrdiff_t x_step, x_row
        const void *dy
        ptrdiff_t dy_step, dy_row
        size_t dy_begin
        void *dx
        ptrdiff_t dx_step, dx_row
        const void *saved
        size_t saved_size
        void *adjoint
        size_t adjoint_size
        const frnn_gradients *gradients
        int accumulate
        void *scratch
        size_t scratch_size
        int parallel_time
        const size_t *lengths
        const unsigned char *reset

    ctypedef struct frnn_gated:
        size_t struct_size
        frnn_dtype dtype
        size_t steps, batch, channels
        const void *alpha
        ptrdiff_t alpha_step, alpha_row
        const void *v
        ptrdiff_t v_step, v_row
        void *y
        ptrdiff_t y_step, y_row
        void *state
        ptrdiff_t state_row
        int parallel_time

    ctypedef struct frnn_gated_back:
        size_t struct_size
        frnn_dtype dtype
        size_t steps, batch, channels
        const void *alpha
        const void *v
        ptrdiff_t alpha_step, alpha_row, v_step, v_row
        const void *y
        ptrdiff_t y_step, y_row
        const void *state
        ptrdiff_t state_row
        const void *dy
        ptrdiff_t dy_step, dy_row
        void *dalpha
        void *dv
        ptrdiff_t dalpha_step, dalpha_row, dv_step, dv_row
        void *dstate
        ptrdiff_t dstate_row
        int parallel_time

    ctypedef struct frnn_tensor:
        const char *name
        size_t name_size
        const char *dtype
        size_t dtype_size, rank
        size_t shape[8]
        const void *data
        size_t data_size

    ctypedef struct frnn_model:
        frnn_config config
        int bias, batch_first, go_backwards
        size_t num_tensors
        char message[192]

    ctypedef struct frnn_kernels:
        double (*fma_flops)(size_t n) noexcept nogil
        size_t (*read_bytes)(const void *buffer, size_t size, size_t repeats) noexcept nogil

    const char *frnn_strerror(frnn_status status)
    const frnn_cell_info *frnn_cell_get(frnn_cell cell)
    const frnn_activation_info *frnn_activation_get(frnn_activation activation)
    frnn_status frnn_config_check(const frnn_config *net)
    size_t frnn_output_size(const frnn_config *net)
    frnn_part frnn_part_shape(const frnn_config *net, size_t layer)
    size_t frnn_weight_elements(const frnn_config *net, size_t layer, int which)
    frnn_status frnn_packed_size(const frnn_config *net, size_t *size)
    frnn_status frnn_pack(const frnn_config *net, const frnn_weights *weights, void *packed,
                          size_t packed_size)
    frnn_status frnn_packed_back_size(const frnn_config *net, size_t *size)
    frnn_status frnn_pack_back(const frnn_config *net, const frnn_weights *weights, void *packed,
                               size_t packed_size)
    frnn_status frnn_saved_size(const frnn_config *net, size_t steps, size_t batch, size_t *size)
    frnn_status frnn_adjoint_size(const frnn_config *net, size_t steps, size_t batch,
                                  size_t *size)
    frnn_status frnn_adjoint_reset(const frnn_config *net, size_t steps, size_t batch,
                                   void *adjoint, size_t size)
    frnn_status frnn_adjoint_get(const frnn_config *net, size_t steps, size_t batch,
                                 const void *adjoint, size_t size, size_t index, void *values)
    frnn_status frnn_adjoint_set(const frnn_config *net, size_t steps, size_t batch, void *adjoint,
                                 size_t size, size_t index, const void *values)
    size_t frnn_checkpoint_unit(const frnn_config *net, size_t batch)
    frnn_status frnn_backward_scratch_size(const frnn_config *net, size_t steps, size_t batch,
                                           size_t *size)
    frnn_status frnn_ragged_backward_scratch_size(const frnn_config *net, size_t steps,
                                                  size_t batch, size_t *size)
    frnn_status frnn_backward(const frnn_config *net, const void *packed, size_t packed_size,
                              const frnn_back *back)
    frnn_status frnn_state_size(const frnn_config *net, size_t batch, size_t *size)
    frnn_status frnn_state_reset(const frnn_config *net, size_t batch, void *state, size_t size)
    frnn_status frnn_state_get(const frnn_config *net, size_t batch, const void *state,
                               size_t state_size, size_t index, void *values)
    frnn_status frnn_state_set(const frnn_config *net, size_t batch, void *state,
                               size_t state_size, size_t index, const void *values)
    frnn_status frnn_state_get_clock(const frnn_config *net, size_t batch, const void *state,
                                     size_t state_size, unsigned long long *clock)
    frnn_status frnn_state_set_clock(const frnn_config *net, size_t batch, void *state,
                                     size_t state_size, const unsigned long long *clock)
    frnn_status frnn_scratch_size(const frnn_config *net, size_t steps, size_t batch,
                                  size_t *size)
    frnn_status frnn_ragged_scratch_size(const frnn_config *net, size_t steps, size_t batch,
                                         size_t *size)
    frnn_status frnn_forward(const frnn_config *net, const void *packed, size_t packed_size,
                             const frnn_run *run)
    frnn_status frnn_gated_leaky(const frnn_gated *gated)
    frnn_status frnn_gated_leaky_backward(const frnn_gated_back *back)
    frnn_status frnn_model_open(frnn_model *model, const void *data, size_t size)
    frnn_status frnn_model_open_tensors(frnn_model *model, const void *data, size_t size)
    frnn_status frnn_model_tensor(const frnn_model *model, size_t index, frnn_tensor *tensor)
    const char *frnn_isa_available(size_t index)
    const char *frnn_isa()
    const frnn_kernels *frnn_kernels_active(frnn_dtype dtype)
