/* SPDX-License-Identifier: MIT
 *
 * Time structures in model files: the keys of the architecture and the names, dtypes and shapes of
 * tensors that are read, and what is refused with which words. No arguments; the exit code is 0 if
 * all is well.
 */
#include "model_check.h"

static char header[ROOM], tensors[ROOM], long_text[ROOM];

/* ---- Tensors -------------------------------------------------------------------------------- */

/* Nets of one small layer. */
#define REQUIRED     "\"format\":1,\"cell\":\"rnn\",\"input_size\":3,\"hidden_size\":2"
#define ARCHITECTURE "{" REQUIRED "}"
#define WEIGHTS                                                                                    \
    TENSOR("weight_ih_l0", "F32", "[2,3]", 0, 24)                                                  \
    "," TENSOR("weight_hh_l0", "F32", "[2,2]", 24, 40)
#define TENSORS                                                                                    \
    WEIGHTS                                                                                        \
    "," TENSOR("bias_ih_l0", "F32", "[2]", 40, 48) "," TENSOR("bias_hh_l0", "F32", "[2]", 48, 56)
#define D8        TENSOR("weight_hh_l0_d8", "F32", "[2,2]", 56, 72)
#define LEAKY_NET "{\"format\":1,\"cell\":\"leaky\",\"input_size\":2,\"hidden_size\":2"
#define SMALL_LSTM                                                                                 \
    "{\"format\":1,\"cell\":\"lstm\",\"input_size\":1,\"hidden_size\":1,\"bias\":false"
#define SMALL_TENSORS                                                                              \
    TENSOR("weight_ih_l0", "F32", "[4,1]", 0, 16)                                                  \
    "," TENSOR("weight_hh_l0", "F32", "[4,1]", 16, 32)

static const struct {
    const char *what, *architecture, *tensors;
    size_t data_size;
    const char *message;
} nets[] = {
    {"a mask alone", ARCHITECTURE, TENSOR("recurrent_mask_l0", "F32", "[2,2]", 0, 16), 16,
     "'recurrent_mask_l0' has dtype 'F32', expected 'BOOL'"},
    {"a mask of bytes", ARCHITECTURE,
     TENSORS "," TENSOR("recurrent_mask_l0", "U8", "[2,2]", 56, 60), 60,
     "'recurrent_mask_l0' has dtype 'U8', expected 'BOOL'"},
    {"a mask of another shape", ARCHITECTURE,
     TENSORS "," TENSOR("recurrent_mask_l0", "BOOL", "[4]", 56, 60), 60,
     "'recurrent_mask_l0' has shape [4], expected [2, 2]"},
    {"a mask of an input", ARCHITECTURE,
     TENSORS "," TENSOR("recurrent_mask_l0", "BOOL", "[2,3]", 56, 62), 62,
     "'recurrent_mask_l0' has shape [2, 3], expected [2, 2]"},
    {"a mask of all gates", SMALL_LSTM "}",
     SMALL_TENSORS "," TENSOR("recurrent_mask_l0", "BOOL", "[4,1]", 32, 36), 36,
     "'recurrent_mask_l0' has shape [4, 1], expected [1, 1]"},
    {"a mask without projection", SMALL_LSTM ",\"proj_size\":2}",
     TENSOR("recurrent_mask_l0", "BOOL", "[1,1]", 0, 1), 1,
     "'recurrent_mask_l0' has shape [1, 1], expected [1, 2]"},
    {"a mask of a layer too many", ARCHITECTURE,
     TENSORS "," TENSOR("recurrent_mask_l1", "BOOL", "[2,2]", 56, 60), 60,
     "'recurrent_mask_l1' does not belong"},
    {"a mask of a direction too many", ARCHITECTURE,
     TENSORS "," TENSOR("recurrent_mask_l0_reverse", "BOOL", "[2,2]", 56, 60), 60,
     "'recurrent_mask_l0_reverse' does not belong"},
    {"a mask of no layer", ARCHITECTURE,
     TENSORS "," TENSOR("recurrent_mask_l", "BOOL", "[2,2]", 56, 60), 60,
     "'recurrent_mask_l' does not belong"},
    {"a mask of one delay", "{" REQUIRED ",\"delays\":[1,2]}",
     TENSORS "," TENSOR("recurrent_mask_l0_d2", "BOOL", "[2,2]", 56, 60), 60,
     "'recurrent_mask_l0_d2' does not belong"},
    {"a mask that the cell has not",
     "{\"format\":1,\"cell\":\"mingru\",\"input_size\":3,\"hidden_size\":1}",
     TENSOR("weight_ih_l0", "F32", "[2,3]", 0, 24) "," TENSOR("recurrent_mask_l0", "BOOL", "[1,1]",
                                                              24, 25),
     25, "'recurrent_mask_l0' does not belong"},
    {"leaky with a mask", LEAKY_NET "}",
     TENSOR("alpha", "F32", "[2]", 0, 8) "," TENSOR("recurrent_mask_l0", "BOOL", "[2,2]", 8, 12),
     12, "'recurrent_mask_l0' does not belong"},
    {"weights that are a mask", ARCHITECTURE, TENSOR("weight_ih_l0", "BOOL", "[2,3]", 0, 6), 6,
     "'weight_ih_l0' has dtype 'BOOL', expected 'F32' or 'F64'"},
    {"biases that are a mask", "{" REQUIRED "}",
     WEIGHTS "," TENSOR("bias_ih_l0", "BOOL", "[2]", 40, 42), 42,
     "'bias_ih_l0' has dtype 'BOOL', expected 'F32' like the first weight"},
    {"no matrix of a delay", "{" REQUIRED ",\"delays\":[1,8]}", TENSORS, 56,
     "tensor 'weight_hh_l0_d8' is missing"},
    {"a matrix of a delay too many", ARCHITECTURE, TENSORS "," D8, 72,
     "'weight_hh_l0_d8' does not belong"},
    {"a matrix of the only delay", "{" REQUIRED ",\"delays\":[8]}", TENSORS "," D8, 72,
     "'weight_hh_l0_d8' does not belong"},
    {"a matrix of the shortest delay", "{" REQUIRED ",\"delays\":[8,9]}", TENSORS "," D8, 72,
     "'weight_hh_l0_d8' does not belong"},
    {"a matrix of a dilated layer", "{" REQUIRED ",\"dilated\":true,\"delays\":[8]}",
     TENSORS "," D8, 72, "'weight_hh_l0_d8' does not belong"},
    {"a matrix of another delay", "{" REQUIRED ",\"delays\":[1,9]}", TENSORS "," D8, 72,
     "'weight_hh_l0_d8' does not belong"},
    {"a matrix of a delay", "{" REQUIRED ",\"delays\":[1,8]}", TENSORS "," D8, 72, NULL},
    {"a matrix of a fractional delay", "{" REQUIRED ",\"delays\":[1,\"0x1.1p+3\"]}", TENSORS "," D8,
     72, NULL},
    {"a delay with a zero before it", "{" REQUIRED ",\"delays\":[1,8]}",
     TENSORS "," TENSOR("weight_hh_l0_d08", "F32", "[2,2]", 56, 72), 72,
     "'weight_hh_l0_d08' does not belong"},
    {"a delay without a number", "{" REQUIRED ",\"delays\":[1,8]}",
     TENSORS "," TENSOR("weight_hh_l0_d", "F32", "[2,2]", 56, 72), 72,
     "'weight_hh_l0_d' does not belong"},
    {"a delay before the direction", "{" REQUIRED ",\"delays\":[1,8],\"bidirectional\":true}",
     TENSORS "," TENSOR("weight_hh_l0_d8_reverse", "F32", "[2,2]", 56, 72), 72,
     "'weight_hh_l0_d8_reverse' does not belong"},
    {"text behind a delay", "{" REQUIRED ",\"delays\":[1,8]}",
     TENSORS "," TENSOR("weight_hh_l0_d8_", "F32", "[2,2]", 56, 72), 72,
     "'weight_hh_l0_d8_' does not belong"},
    {"a delayed input", "{" REQUIRED ",\"delays\":[1,8]}",
     TENSORS "," TENSOR("weight_ih_l0_d8", "F32", "[2,3]", 56, 80), 80,
     "'weight_ih_l0_d8' does not belong"},
    {"a delayed bias", "{" REQUIRED ",\"delays\":[1,8]}",
     TENSORS "," TENSOR("bias_hh_l0_d8", "F32", "[2]", 56, 64), 64,
     "'bias_hh_l0_d8' does not belong"},
    {"a delayed matrix of another shape", "{" REQUIRED ",\"delays\":[1,8]}",
     TENSORS "," TENSOR("weight_hh_l0_d8", "F32", "[2,3]", 56, 80), 80,
     "'weight_hh_l0_d8' has shape [2, 3], expected [2, 2]"},
    {"a delayed matrix of another dtype", "{" REQUIRED ",\"delays\":[1,8]}",
     TENSORS "," TENSOR("weight_hh_l0_d8", "F64", "[2,2]", 56, 88), 88,
     "'weight_hh_l0_d8' has dtype 'F64', expected 'F32' like the first weight"},
};

static void test_tensors(void) {
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++) {
        build_header(header, nets[i].architecture, nets[i].tensors);
        check_open(frnn_model_open, nets[i].what, build_file(file, header, nets[i].data_size),
                   nets[i].message);
    }
}

/* ---- Keys ----------------------------------------------------------------------------------- */

/* A net of 6 units with more keys, but without tensors: expected of the first that is missing if
 * all is well. */
static void check_keys(const char *cell, const char *keys, const char *expected) {
    sprintf(long_text, "{\"format\":1,\"cell\":\"%s\",\"input_size\":6,\"hidden_size\":6,%s}", cell,
            keys);
    build_header(header, long_text, "");
    check_open(frnn_model_open, keys, build_file(file, header, 0), expected);
}

#define TIMES_4(text)    text text text text
#define TIMES_16(text)   TIMES_4(TIMES_4(text))
#define MISSING          "tensor 'weight_ih_l0' is missing"
#define CLOCKS(periods)  "\"periods\":[" periods "],\"group_sizes\":[3,3]"
#define GROUPS(sizes)    "\"periods\":[1,2],\"group_sizes\":[" sizes "]"
#define LAYERS(n, delay) "\"num_layers\":" n ",\"dilated\":true,\"delays\":[" delay "]"

static void test_keys(void) {
    static const struct {
        const char *keys, *expected;
    } cases[] = {
        {"\"delays\":[1]", MISSING},
        {"\"delays\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]", MISSING},
        {"\"delays\":[4294967295]", MISSING},
        {"\"delays\" :\n[ \"0x1.0p+0\" ,8 , \"0x1.2p+3\" ]", MISSING},
        {"\"delays\":[\"0x1.fffffffffffffp+0\",2]", MISSING},
        {LAYERS("1", "1"), MISSING},
        {LAYERS("3", "8,1,8"), MISSING},
        {LAYERS("2", "\"0x1.8p+1\",1"), MISSING},
        {LAYERS("16", "1" TIMES_4(",1") TIMES_4(",2") TIMES_4(",3") ",4,4,4"), MISSING},
        {CLOCKS("1,1"), MISSING},
        {CLOCKS("8,18446744073709551615"), MISSING},
        {CLOCKS("2,1") ",\"connectivity\":\"full\"", MISSING},
        {CLOCKS("2,1") ",\"connectivity\" : \"slower\"", MISSING},
        {"\"group_sizes\":[6],\"periods\":[3]", MISSING},

        {"\"delays\":8", "'delays': '[' is expected"},
        {"\"delays\":\"8\"", "'delays': '[' is expected"},
        {"\"delays\":null", "'delays': '[' is expected"},
        {"\"delays\":[]", "'delays' is '[]', expected at least one number"},
        {"\"delays\":[1", "'delays': ',' or ']' is expected"},
        {"\"delays\":[1,]", "'delays': a whole number from 0 is expected"},
        {"\"delays\":[1 2]", "'delays': ',' or ']' is expected"},
        {"\"delays\":[1.5]", "'delays': ',' or ']' is expected"},
        {"\"delays\":[1e3]", "'delays': ',' or ']' is expected"},
        {"\"delays\":[01]", "'delays': a number with a leading zero"},
        {"\"delays\":[-1]", "'delays': a whole number from 0 is expected"},
        {"\"delays\":[true]", "'delays': a whole number from 0 is expected"},
        {"\"delays\":[[1]]", "'delays': a whole number from 0 is expected"},
        {"\"delays\":[18446744073709551616]", "'delays': a number that is too large"},
        {"\"delays\":[4294967296]", "'delays' is '[4294967296]', which no lstm net has"},
        {"\"delays\":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]",
         "'delays': a list with too many numbers"},
        {"\"delays\":[0]", "'delays' is '[0]', expected numbers from 1 on"},
        {"\"delays\":[0,1]", "'delays' is '[0,1]', expected numbers from 1 on"},
        {"\"delays\":[\"0x1.8p-1\"]", "'delays' is '[\"0x1.8p-1\"]', expected numbers from 1 on"},
        {"\"delays\":[\"0x0.0p+0\"]", "expected numbers from 1 on"},
        {"\"delays\":[\"-0x0.0p+0\"]", "expected numbers from 1 on"},
        {"\"delays\":[\"-0x1.8p+1\"]", "'delays': a number that is negative or too large"},
        {"\"delays\":[\"0x1.0p+64\"]", "'delays': a number that is negative or too large"},
        {"\"delays\":[\"0x1.0p+1023\"]", "'delays': a number that is negative or too large"},
        {"\"delays\":[\"0x1.fffffffffffffp+63\"]", "which no lstm net has"},
        {"\"delays\":[\"0x1.0p+32\"]", "'delays' is '[\"0x1.0p+32\"]', which no lstm net has"},
        {"\"delays\":[\"2\"]", "'delays': a number like 0x1.8p+1 is expected"},
        {"\"delays\":[\"2.5\"]", "'delays': a number like 0x1.8p+1 is expected"},
        {"\"delays\":[\"\"]", "'delays': a number like 0x1.8p+1 is expected"},
        {"\"delays\":[\"0x1p+1\"]", "'delays': a number like 0x1.8p+1 is expected"},
        {"\"delays\":[\"inf\"]", "'delays': a number like 0x1.8p+1 is expected"},
        {"\"delays\":[\"nan\"]", "'delays': a number like 0x1.8p+1 is expected"},
        {"\"delays\":[\" 0x1.8p+1\"]", "'delays': a number like 0x1.8p+1 is expected"},
        {"\"delays\":[\"0x1.8p+1 \"]", "'delays': '\"' is expected"},
        {"\"delays\":[\"0x1.8p+1, 0x1.8p+2\"]", "'delays': '\"' is expected"},
        {"\"delays\":[\"0x1.8\\u0070+1\"]", "'delays': a number like 0x1.8p+1 is expected"},
        {"\"delays\":[2,1]", "'delays' is '[2,1]', expected numbers whose whole parts ascend"},
        {"\"delays\":[1,1]", "expected numbers whose whole parts ascend"},
        {"\"delays\":[1,8,4]", "expected numbers whose whole parts ascend"},
        {"\"delays\":[2,\"0x1.4p+1\"]", "expected numbers whose whole parts ascend"},
        {"\"delays\":[\"0x1.2p+1\",\"0x1.4p+1\"]", "expected numbers whose whole parts ascend"},
        {"\"delays\":[1],\"delays\":[1]", "the key 'delays' appears twice"},
        {"\"dilated\":true", "'dilated' is 'true', but there are no 'delays'"},
        {"\"dilated\":1,\"delays\":[1]", "'dilated': true or false is expected"},
        {LAYERS("2", "1"), "'delays' is '[1]', expected as many numbers as there are layers"},
        {LAYERS("2", "1,2,3"), "expected as many numbers as there are layers"},
        {LAYERS("17", TIMES_16("1,") "1"), "'delays': a list with too many numbers"},

        {"\"periods\":[1]", "'periods' is '[1]', but there are no 'group_sizes'"},
        {"\"group_sizes\":[6]", "'group_sizes' is '[6]', but there are no 'periods'"},
        {"\"connectivity\":\"full\"", "'connectivity' is 'full', but there are no 'periods'"},
        {"\"delays\":[1,2],\"connectivity\":\"full\"",
         "'connectivity' is 'full', but there are no"},
        {"\"connectivity\":\"slower\"", MISSING},
        {CLOCKS("1,2") ",\"connectivity\":\"faster\"",
         "'connectivity' is 'faster', expected 'slower' or 'full'"},
        {"\"connectivity\":\"\"", "'connectivity' is '', expected 'slower' or 'full'"},
        {"\"connectivity\":\"Full\"", "'connectivity' is 'Full', expected 'slower' or 'full'"},
        {"\"connectivity\":\"slowe\"", "'connectivity' is 'slowe', expected"},
        {"\"connectivity\":true", "'connectivity': a string is expected"},
        {"\"periods\":[],\"group_sizes\":[]", "'periods' is '[]', expected at least one number"},
        {"\"periods\":[1],\"group_sizes\":[]", "'group_sizes' is '[]', expected at least one"},
        {"\"periods\":4,\"group_sizes\":[6]", "'periods': '[' is expected"},
        {CLOCKS("0,1"), "'periods' is '[0,1]', expected numbers from 1 on"},
        {CLOCKS("1,-1"), "'periods': a whole number from 0 is expected"},
        {CLOCKS("1,\"0x1.0p+1\""), "'periods': a whole number from 0 is expected"},
        {CLOCKS("1,18446744073709551616"), "'periods': a number that is too large"},
        {CLOCKS("1"), "'group_sizes' is '[3,3]', expected as many numbers as there are 'periods'"},
        {CLOCKS("1,2,3"), "expected as many numbers as there are 'periods'"},
        {GROUPS("6,0"), "'group_sizes' is '[6,0]', expected numbers from 1 on"},
        {GROUPS("3,2"), "'group_sizes' is '[3,2]', expected numbers whose sum is 'hidden_size'"},
        {GROUPS("3,4"), "expected numbers whose sum is 'hidden_size'"},
        {GROUPS("7,18446744073709551615"), "expected numbers whose sum is 'hidden_size'"},
        {GROUPS("18446744073709551615,7"), "expected numbers whose sum is 'hidden_size'"},
        {GROUPS("\"0x1.8p+1\",3"), "'group_sizes': a whole number from 0 is expected"},
        {"\"periods\":[" TIMES_16("1,1,1,1,") "1],\"group_sizes\":[6]",
         "'periods': a list with too many numbers"},
        {"\"periods\":[1],\"group_sizes\":[" TIMES_16("1,1,1,1,") "1]",
         "'group_sizes': a list with too many numbers"},
        {"\"delays\":[1,2]," CLOCKS("1,2"),
         "'periods' is '[1,2]', which no lstm net has beside 'delays'"},
        {"\"delays\":[2]," CLOCKS("1,2"), "which no lstm net has beside 'delays'"},
        {LAYERS("1", "1") "," CLOCKS("1,2"), "which no lstm net has beside 'delays'"},
        {"\"delays\":[1]," CLOCKS("1,2"), MISSING},
        {"\"proj_size\":6," CLOCKS("1,2"), "which no lstm net has beside 'proj_size'"},
        {"\"proj_size\":2,\"delays\":[1,2]", MISSING},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_keys("lstm", cases[i].keys, cases[i].expected);
}

/* Cells that have no such structure. */
static void test_cells(void) {
    check_keys("mingru", "\"delays\":[1,2]", "'delays' is '[1,2]', which no mingru net has");
    check_keys("mingru", "\"delays\":[2]", MISSING);
    check_keys("mingru", LAYERS("2", "2,1"), MISSING);
    check_keys("mingru", CLOCKS("1,2"), MISSING);
    check_keys("gru_reset_before", CLOCKS("1,2"),
               "'periods' is '[1,2]', which no gru_reset_before net has");
    check_keys("gru_reset_before", "\"delays\":[1,2]", MISSING);
    check_keys("gru_reset_before", "\"delays\":[2]", MISSING);
    check_keys("gru_reset_before", LAYERS("2", "2,1"), MISSING);
    check_keys("gru", CLOCKS("1,2"), MISSING);
    check_keys("leaky", "\"delays\":[2]", "'delays' is '[2]', which no leaky net has");
    check_keys("leaky", LAYERS("1", "1"), "'delays' is '[1]', which no leaky net has");
    check_keys("leaky", CLOCKS("1,2"), "'periods' is '[1,2]', which no leaky net has");
    check_keys("leaky", "\"delays\":[1],\"connectivity\":\"slower\"", "tensor 'alpha' is missing");
}

/* What is read of a list of delays. */
static void test_delays(void) {
    static const struct {
        const char *text;
        size_t count, delays[3];
        double fractions[3];
    } lists[] = {{"[1]", 0, {0}, {0}},
                 {"[\"0x1.0p+0\"]", 0, {0}, {0}},
                 {"[2]", 1, {2}, {0}},
                 {"[\"0x1.0p+1\"]", 1, {2}, {0}},
                 {"[\"0x1.0000000000001p+0\"]", 1, {1}, {0x1p-52}},
                 {"[ \"0x1.8p+0\" , 2 , \"0x1.fffffffffffffp+31\" ]",
                  3,
                  {1, 2, 4294967295},
                  {0.5, 0, 1 - 0x1p-21}}};
    frnn_model model;
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        frnn_config net = FRNN_CONFIG(FRNN_CELL_RNN, 3, 2);
        net.num_delays = lists[i].count;
        memcpy(net.delays, lists[i].delays, sizeof lists[i].delays);
        memcpy(net.fractions, lists[i].fractions, sizeof lists[i].fractions);
        const size_t data_size = build_net(header, tensors, &net, 0);
        sprintf(long_text, "{" REQUIRED ",\"bias\":false,\"delays\":%s}", lists[i].text);
        build_header(header, long_text, tensors);
        CHECK(frnn_model_open(&model, file, build_file(file, header, data_size)) == FRNN_OK, "%s",
              model.message);
        CHECK(same_config(&model.config, &net), "%s", lists[i].text);
    }
}

/* The longest architecture that has a use fits. */
static void test_long_lists(void) {
    strcpy(long_text,
           "{\"format\": 1, \"cell\": \"lstm_coupled\", \"input_size\": 18446744073709551615, "
           "\"hidden_size\": 18446744073709551615, \"num_layers\": 18446744073709551615, "
           "\"bidirectional\": false, \"bias\": false, \"batch_first\": false, "
           "\"go_backwards\": false, \"proj_size\": 0, \"peephole\": false, "
           "\"clip\": \"0x0.fffffffffffffp-1022\", \"cell_clip\": \"0x0.fffffffffffffp-1022\"");
    static const char *const keys[] = {"activation", "gate_activation", "output_activation"};
    for (size_t i = 0; i < 3; i++)
        PUT(long_text,
            ", \"%s\": \"hard_sigmoid(-0x0.fffffffffffffp-1022, -0x0.fffffffffffffp-1022)\"",
            keys[i]);
    PUT(long_text, ", \"delays\": [1], \"dilated\": false, \"connectivity\": \"slower\"");
    PUT(long_text, ", \"periods\": [");
    for (size_t i = 0; i < FRNN_MAX_GROUPS; i++)
        PUT(long_text, "%s18446744073709551615", i > 0 ? ", " : "");
    PUT(long_text, "], \"group_sizes\": [");
    for (size_t i = 0; i < FRNN_MAX_GROUPS; i++) /* as if these had 20 digits, too */
        PUT(long_text, "%s%20s", i > 0 ? ", " : "", i > 0 ? "1" : "18446744073709551552");
    PUT(long_text, "]}");
    CHECK(strlen(long_text) < 4000, "%zu characters", strlen(long_text));
    build_header(header, long_text, "");
    check_open(frnn_model_open, "long lists", build_file(file, header, 0), MISSING);
}

int main(void) {
    test_tensors();
    test_keys();
    test_cells();
    test_delays();
    test_long_lists();
    return report();
}
