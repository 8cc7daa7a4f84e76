/* SPDX-License-Identifier: MIT
 *
 * The architecture in a model file: what is read, and what is refused with which words.
 */
#include "model_check.h"

static char header[ROOM], tensors[ROOM], long_text[ROOM];

/* A net of one small layer, and what may be wrong with it. */
#define REQUIRED     "\"format\":1,\"cell\":\"rnn\",\"input_size\":3,\"hidden_size\":2"
#define ARCHITECTURE "{" REQUIRED "}"
#define BIASES                                                                                     \
    TENSOR("bias_ih_l0", "F32", "[2]", 40, 48) "," TENSOR("bias_hh_l0", "F32", "[2]", 48, 56)
#define WEIGHTS                                                                                    \
    TENSOR("weight_ih_l0", "F32", "[2,3]", 0, 24)                                                  \
    "," TENSOR("weight_hh_l0", "F32", "[2,2]", 24, 40)
#define TENSORS   WEIGHTS "," BIASES
#define LEAKY_NET "{\"format\":1,\"cell\":\"leaky\",\"input_size\":2,\"hidden_size\":2"

#define BIASES_AT_24                                                                               \
    TENSOR("bias_ih_l0", "F32", "[2]", 24, 32) "," TENSOR("bias_hh_l0", "F32", "[2]", 32, 40)
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
    {"defaults", ARCHITECTURE, TENSORS, 56, NULL},
    {"all keys, in another order",
     " {\"batch_first\":true , \"hidden_size\": "
     "2,\"bias\":true,\"input_size\":3,\n\"cell\":\"rnn\","
     "\"bidirectional\":false,\"num_layers\":1,\"activation\":\"relu\",\"format\":1,"
     "\"go_backwards\" : true,\"proj_size\":0,\"peephole\":false,\"clip\" :\"0x1.0p-1022\","
     "\"cell_clip\":\"0x0.0p+0\",\"gate_activation\": \"sigmoid\","
     "\"output_activation\":\"tanh\", \"delays\" : [ 1 ] ,\"dilated\":false,"
     "\"connectivity\": \"slower\"} ",
     TENSORS, 56, NULL},
    {"no bias", "{" REQUIRED ",\"bias\":false}", WEIGHTS, 40, NULL},
    {"other order of tensors", ARCHITECTURE, BIASES "," WEIGHTS, 56, NULL},
    {"leaky", LEAKY_NET "}", TENSOR("alpha", "F64", "[2]", 0, 16), 16, NULL},

    {"no JSON", "rnn", TENSORS, 56, "fastrnn metadata, byte 0: '{' is expected"},
    {"nothing", "", TENSORS, 56, "fastrnn metadata, byte 0: '{' is expected"},
    {"a list", "[]", TENSORS, 56, "fastrnn metadata, byte 0: '{' is expected"},
    {"an open object", "{" REQUIRED, TENSORS, 56, "',' or '}' is expected"},
    {"more than an object", ARCHITECTURE "1", TENSORS, 56, "nothing may follow"},
    {"no format", "{\"cell\":\"rnn\",\"input_size\":3,\"hidden_size\":2}", TENSORS, 56,
     "the key 'format' is missing"},
    {"no cell", "{\"format\":1,\"input_size\":3,\"hidden_size\":2}", TENSORS, 56,
     "the key 'cell' is missing"},
    {"no input_size", "{\"format\":1,\"cell\":\"rnn\",\"hidden_size\":2}", TENSORS, 56,
     "the key 'input_size' is missing"},
    {"no hidden_size", "{\"format\":1,\"cell\":\"rnn\",\"input_size\":3}", TENSORS, 56,
     "the key 'hidden_size' is missing"},
    {"an empty object", "{}", TENSORS, 56, "the key 'format' is missing"},
    {"format 2", "{\"format\":2,\"cell\":\"rnn\",\"input_size\":3,\"hidden_size\":2}", TENSORS, 56,
     "'format' is 2, expected 1"},
    {"format \"1\"", "{\"format\":\"1\"}", TENSORS, 56, "'format': a whole number"},
    {"an unknown cell", "{\"format\":1,\"cell\":\"elman\",\"input_size\":3,\"hidden_size\":2}",
     TENSORS, 56, "'cell' is 'elman', which is not known"},
    {"a part of a cell's name", "{\"cell\":\"lst\"}", TENSORS, 56, "'cell' is 'lst'"},
    {"no cell's name", "{\"cell\":\"\"}", TENSORS, 56, "'cell' is ''"},
    {"a cell in capitals", "{\"format\":1,\"cell\":\"RNN\"}", TENSORS, 56, "'cell' is 'RNN'"},
    {"a cell that is a number", "{\"cell\":1}", TENSORS, 56, "'cell': a string is expected"},
    {"a cell with an escape", "{\"cell\":\"\\u0072nn\"}", TENSORS, 56, "'cell': an escape"},
    {"an unknown activation", "{" REQUIRED ",\"activation\":\"gelu\"}", TENSORS, 56,
     "'activation' is 'gelu', which is no activation"},
    {"an activation that is a number", "{" REQUIRED ",\"activation\":1}", TENSORS, 56,
     "'activation': a string is expected"},
    {"an unknown key", "{" REQUIRED ",\"dropout\":0}", TENSORS, 56, "the key 'dropout' is not"},
    {"a new key twice", "{" REQUIRED ",\"proj_size\":0,\"proj_size\":0}", TENSORS, 56,
     "the key 'proj_size' appears twice"},
    {"a key twice", "{" REQUIRED ",\"cell\":\"rnn\"}", TENSORS, 56, "the key 'cell' appears twice"},
    {"a size that is a string", "{\"input_size\":\"3\"}", TENSORS, 56, "'input_size': a whole"},
    {"a negative size", "{\"input_size\":-3}", TENSORS, 56, "'input_size': a whole number"},
    {"a size with a fraction", "{\"input_size\":3.5}", TENSORS, 56, "',' or '}' is expected"},
    {"a size that does not fit", "{\"input_size\":99999999999999999999}", TENSORS, 56,
     "'input_size': a number that is too large"},
    {"a size of 0", "{\"format\":1,\"cell\":\"rnn\",\"input_size\":0,\"hidden_size\":2}", TENSORS,
     56, "no net has 'cell' rnn, 'input_size' 0"},
    {"no layers", "{" REQUIRED ",\"num_layers\":0}", TENSORS, 56, "'num_layers' 0"},
    {"bias that is a number", "{\"bias\":1}", TENSORS, 56, "'bias': true or false is expected"},
    {"bias that is a word", "{\"bias\":falsehood}", TENSORS, 56, "',' or '}' is expected"},
    {"bias cut short", "{\"bias\":tru", TENSORS, 56, "'bias': true or false is expected"},
    {"batch_first null", "{\"batch_first\":null}", TENSORS, 56, "'batch_first': true or false"},
    {"a leaky net of two layers", LEAKY_NET ",\"num_layers\":2}",
     TENSOR("alpha", "F32", "[2]", 0, 8), 8, "no net has 'cell' leaky"},
    {"both directions backwards", "{" REQUIRED ",\"bidirectional\":true,\"go_backwards\":true}",
     TENSORS, 56, "both 'go_backwards' and 'bidirectional' are true"},
    {"go_backwards that is a string", "{\"go_backwards\":\"true\"}", TENSORS, 56,
     "'go_backwards': true or false is expected"},
    {"peephole that is a number", "{\"peephole\":1}", TENSORS, 56,
     "'peephole': true or false is expected"},
    {"proj_size that is a string", "{\"proj_size\":\"1\"}", TENSORS, 56,
     "'proj_size': a whole number"},
    {"clip that is a number", "{\"clip\":3}", TENSORS, 56, "'clip': a string is expected"},
    {"clip in decimals", "{\"clip\":\"3.0\"}", TENSORS, 56,
     "'clip' is '3.0', expected a number like 0x1.8p+1"},
    {"cell_clip infinite", "{\"cell_clip\":\"inf\"}", TENSORS, 56,
     "'cell_clip' is 'inf', expected a number like 0x1.8p+1"},
    {"leaky alpha of a layer", LEAKY_NET "}", TENSOR("alpha_l0", "F32", "[2]", 0, 8), 8,
     "'alpha_l0' does not belong"},
    {"leaky without alpha", LEAKY_NET "}", "", 0, "tensor 'alpha' is missing"},
    {"leaky alpha of a wrong shape", LEAKY_NET "}", TENSOR("alpha", "F32", "[2,1]", 0, 8), 8,
     "'alpha' has shape [2, 1], expected [2]"},

    {"no tensors", ARCHITECTURE, "", 0, "tensor 'weight_ih_l0' is missing"},
    {"no bias tensors", ARCHITECTURE, WEIGHTS, 40, "tensor 'bias_ih_l0' is missing"},
    {"unwanted biases", "{" REQUIRED ",\"bias\":false}", TENSORS, 56,
     "'bias_ih_l0' does not belong"},
    {"an alpha", ARCHITECTURE, TENSORS "," TENSOR("alpha_l0", "F32", "[2]", 56, 64), 64,
     "'alpha_l0' does not belong"},
    {"an extra tensor", ARCHITECTURE, TENSORS "," TENSOR("scale", "F32", "[]", 56, 60), 60,
     "'scale' does not belong"},
    {"an empty extra tensor", ARCHITECTURE, TENSORS "," TENSOR("weight", "F32", "[0]", 56, 56), 56,
     "'weight' does not belong"},
    {"a layer too many", ARCHITECTURE, TENSORS "," TENSOR("weight_ih_l1", "F32", "[2,2]", 56, 72),
     72, "'weight_ih_l1' does not belong"},
    {"a direction too many", ARCHITECTURE,
     TENSORS "," TENSOR("weight_ih_l0_reverse", "F32", "[2,3]", 56, 80), 80,
     "'weight_ih_l0_reverse' does not belong"},
    {"another name for layer 0", ARCHITECTURE,
     TENSORS "," TENSOR("weight_ih_l00", "F32", "[2,3]", 56, 80), 80, "'weight_ih_l00' does not"},
    {"a space before the layer", ARCHITECTURE,
     TENSORS "," TENSOR("weight_ih_l 0", "F32", "[2,3]", 56, 80), 80, "'weight_ih_l 0' does not"},
    {"a stem alone", ARCHITECTURE, TENSORS "," TENSOR("weight_ih_l", "F32", "[2,3]", 56, 80), 80,
     "'weight_ih_l' does not belong"},
    {"half a stem", ARCHITECTURE, TENSORS "," TENSOR("weight_i", "F32", "[2,3]", 56, 80), 80,
     "'weight_i' does not belong"},
    {"another suffix", ARCHITECTURE,
     TENSORS "," TENSOR("weight_ih_l0_reversed", "F32", "[2,3]", 56, 80), 80,
     "'weight_ih_l0_reversed' does not belong"},
    {"a missing layer", "{" REQUIRED ",\"num_layers\":2}", TENSORS, 56,
     "'weight_ih_l1' is missing"},
    {"2^60 layers", "{" REQUIRED ",\"num_layers\":1152921504606846976}", TENSORS, 56,
     "'weight_ih_l1' is missing"},
    {"a far layer", "{" REQUIRED ",\"num_layers\":1152921504606846976}",
     TENSORS "," TENSOR("weight_ih_l1152921504606846975", "F32", "[2,2]", 56, 72), 72,
     "'weight_ih_l1' is missing"},
    {"a layer between", "{" REQUIRED ",\"num_layers\":1152921504606846976}",
     TENSORS "," TENSOR("weight_ih_l1024", "F32", "[2,2]", 56, 72), 72,
     "'weight_ih_l1' is missing"},
    {"a layer whose number wraps", "{" REQUIRED ",\"num_layers\":4611686018427387905}",
     TENSOR("weight_ih_l4611686018427387904", "F32", "[2,2]", 0, 16) "," TENSOR(
         "weight_hh_l0", "F32", "[2,2]", 16, 32) "," TENSOR("bias_ih_l0", "F32", "[2]", 32, 40),
     40, "'weight_ih_l0' is missing"},
    {"a missing direction", "{" REQUIRED ",\"bidirectional\":true}", TENSORS, 56,
     "'weight_ih_l0_reverse' is missing"},
    {"another suffix where there are two directions", "{" REQUIRED ",\"bidirectional\":true}",
     TENSORS "," TENSOR("weight_ih_l0_backward", "F32", "[2,3]", 56, 80), 80,
     "'weight_ih_l0_backward' does not belong"},
    {"a hidden_size whose products do not fit",
     "{\"format\":1,\"cell\":\"lstm\",\"input_size\":3,\"hidden_size\":18446744073709551615}",
     TENSORS, 56, "18446744073709551615"},
    {"a proj_size whose double does not fit",
     "{\"format\":1,\"cell\":\"lstm\",\"input_size\":3,\"hidden_size\":2,"
     "\"proj_size\":9223372036854775808,\"num_layers\":2,\"bidirectional\":true}",
     TENSOR("weight_ih_l1", "F32", "[2,3]", 0, 24), 24, "'proj_size' 9223372036854775808"},
    {"a hidden_size whose double does not fit",
     "{\"format\":1,\"cell\":\"rnn\",\"input_size\":3,\"hidden_size\":9223372036854775808,"
     "\"num_layers\":2,\"bidirectional\":true}",
     TENSOR("weight_ih_l1", "F32", "[2,3]", 0, 24), 24, "'hidden_size' 9223372036854775808"},
    {"another hidden_size", "{\"format\":1,\"cell\":\"rnn\",\"input_size\":3,\"hidden_size\":3}",
     TENSORS, 56, "'weight_ih_l0' has shape [2, 3], expected [3, 3]"},
    {"another cell", "{\"format\":1,\"cell\":\"lstm\",\"input_size\":3,\"hidden_size\":2}", TENSORS,
     56, "'weight_ih_l0' has shape [2, 3], expected [8, 3]"},
    {"another cell, of three gates",
     "{\"format\":1,\"cell\":\"gru\",\"input_size\":3,\"hidden_size\":2}", TENSORS, 56,
     "'weight_ih_l0' has shape [2, 3], expected [6, 3]"},
    {"a matrix that the cell has not",
     "{\"format\":1,\"cell\":\"mingru\",\"input_size\":3,\"hidden_size\":1}", TENSORS, 56,
     "'weight_hh_l0' does not belong"},
    {"a bias that the cell has not",
     "{\"format\":1,\"cell\":\"mingru\",\"input_size\":3,\"hidden_size\":1}",
     TENSOR("weight_ih_l0", "F32", "[2,3]", 0, 24) "," BIASES_AT_24, 40,
     "'bias_hh_l0' does not belong"},
    {"a projection that the net has not", SMALL_LSTM "}",
     SMALL_TENSORS "," TENSOR("weight_hr_l0", "F32", "[1,1]", 32, 36), 36,
     "'weight_hr_l0' does not belong"},
    {"a peephole that the net has not", SMALL_LSTM "}",
     SMALL_TENSORS "," TENSOR("peephole_l0", "F32", "[3]", 32, 44), 44,
     "'peephole_l0' does not belong"},
    {"no projection", SMALL_LSTM ",\"proj_size\":1}", SMALL_TENSORS, 32,
     "tensor 'weight_hr_l0' is missing"},
    {"no peephole", SMALL_LSTM ",\"peephole\":true}", SMALL_TENSORS, 32,
     "tensor 'peephole_l0' is missing"},
    {"a projection turned round", SMALL_LSTM ",\"proj_size\":2}",
     TENSOR("weight_hr_l0", "F32", "[1,2]", 0, 8), 8,
     "'weight_hr_l0' has shape [1, 2], expected [2, 1]"},
    {"a recurrent matrix without projection", SMALL_LSTM ",\"proj_size\":2}", SMALL_TENSORS, 32,
     "'weight_hh_l0' has shape [4, 1], expected [4, 2]"},
    {"two peepholes", SMALL_LSTM ",\"peephole\":true}",
     SMALL_TENSORS "," TENSOR("peephole_l0", "F32", "[2]", 32, 40), 40,
     "'peephole_l0' has shape [2], expected [3]"},
    {"three peepholes of a coupled cell",
     "{\"format\":1,\"cell\":\"lstm_coupled\",\"input_size\":1,\"hidden_size\":1,"
     "\"peephole\":true}",
     TENSOR("peephole_l0", "F32", "[3]", 0, 12), 12, "'peephole_l0' has shape [3], expected [2]"},
    {"another input_size", "{\"format\":1,\"cell\":\"rnn\",\"input_size\":2,\"hidden_size\":2}",
     TENSORS, 56, "'weight_ih_l0' has shape [2, 3], expected [2, 2]"},
    {"a vector as matrix", ARCHITECTURE,
     WEIGHTS "," TENSOR("bias_ih_l0", "F32", "[2,1]", 40, 48) "," TENSOR("bias_hh_l0", "F32", "[2]",
                                                                         48, 56),
     56, "'bias_ih_l0' has shape [2, 1], expected [2]"},
    {"integers", ARCHITECTURE, TENSOR("weight_ih_l0", "I32", "[2,3]", 0, 24), 24,
     "'weight_ih_l0' has dtype 'I32', expected 'F32' or 'F64'"},
    {"mixed dtypes", "{" REQUIRED ",\"bias\":false}",
     TENSOR("weight_ih_l0", "F32", "[2,3]", 0, 24) "," TENSOR("weight_hh_l0", "F64", "[2,2]", 24,
                                                              56),
     56, "'weight_hh_l0' has dtype 'F64', expected 'F32' like the first"},
};

static void test_architectures(void) {
    for (size_t i = 0; i < sizeof nets / sizeof *nets; i++) {
        build_header(header, nets[i].architecture, nets[i].tensors);
        check_open(frnn_model_open, nets[i].what, build_file(file, header, nets[i].data_size),
                   nets[i].message);
    }
    check_open(frnn_model_open, "no metadata", build_file(file, "{" TENSORS "}", 56),
               "no metadata key 'fastrnn'");
    check_open(frnn_model_open, "other metadata",
               build_file(file, "{\"__metadata__\":{\"format\":\"pt\"}," TENSORS "}", 56),
               "no metadata key 'fastrnn'");

    /* An architecture of 4096 characters, and one more. */
    memset(long_text, 0, sizeof long_text);
    strcpy(long_text, ARCHITECTURE);
    memset(long_text + strlen(long_text), ' ', 4096 - strlen(long_text));
    build_header(header, long_text, TENSORS);
    check_open(frnn_model_open, "4096 characters", build_file(file, header, 56), NULL);
    strcat(long_text, " ");
    build_header(header, long_text, TENSORS);
    check_open(frnn_model_open, "4097 characters", build_file(file, header, 56),
               "more than 4096 characters");
    sprintf(long_text, "{\"bias\":%4088s", "tru");
    build_header(header, long_text, TENSORS);
    check_open(frnn_model_open, "4096 characters, cut short", build_file(file, header, 56),
               "'bias': true or false is expected at byte 4093");
}

/* ---- Fractions and activations -------------------------------------------------------------- */

/* A net of the cell with one key more, whose value is a string. */
static void check_option(const char *cell, const char *key, const char *value,
                         const char *expected) {
    frnn_model model;
    snprintf(long_text, sizeof long_text,
             "{\"format\":1,\"cell\":\"%s\",\"input_size\":3,\"hidden_size\":3,\"%s\":\"%s\"}",
             cell, key, value);
    build_header(header, long_text, "");
    const size_t size = build_file(file, header, 0);
    memset(&model, 0x55, sizeof model);
    CHECK(frnn_model_open(&model, file, size) == FRNN_E_FILE, "%s %s", key, value);
    CHECK(strstr(model.message, expected) != NULL, "%s %s: \"%s\" should have \"%s\"", key, value,
          model.message, expected);
}

/* What is read of a clip, bit by bit. */
static double read_clip(const char *text) {
    frnn_config net = FRNN_CONFIG(FRNN_CELL_RNN, 1, 1);
    char architecture[256];
    frnn_model model;
    net.dtype = FRNN_F64; /* float32 has no such limits */
    build_net(header, tensors, &net, 1);
    sprintf(architecture,
            "{\"format\":1,\"cell\":\"rnn\",\"input_size\":1,\"hidden_size\":1,\"clip\":\"%s\"}",
            text);
    build_header(header, architecture, tensors);
    const frnn_status status = frnn_model_open(&model, file, build_file(file, header, 32));
    CHECK(status == FRNN_OK, "%s: %s", text, model.message);
    return status == FRNN_OK ? model.config.clip : NAN;
}

static void test_fractions(void) {
    static const struct {
        const char *text;
        double number;
    } good[] = {{"0x1.0p+0", 1},
                {"0x1.8p+1", 3},
                {"0x1.8000000000000p+1", 3},
                {"0x1.999999999999ap-4", 0.1},
                {"0x1.fffffffffffffp+1023", 0x1.fffffffffffffp+1023},
                {"0x1.abcdefp+10", 0x1.abcdefp+10},
                {"0x1.0000000000001p-1022", 0x1.0000000000001p-1022},
                {"0x0.0p+0", 0},
                {"0x0.0000000000000p+0", 0},
                {"-0x0.0p+0", -0.0}};
    static const char *const bad[] = {"",
                                      "0",
                                      "1",
                                      "3.5",
                                      "1e3",
                                      "inf",
                                      "-inf",
                                      "nan",
                                      "Infinity",
                                      "0x",
                                      "0x1",
                                      "0x1p+1",
                                      "0x1.",
                                      "0x1.p+1",
                                      "0x1.8",
                                      "0x1.8p",
                                      "0x1.8p+",
                                      "0x1.8p1",
                                      "0x1.8p 1",
                                      "0x1.8p+-1",
                                      "0x1.8p+01",
                                      "0x1.8p-0",
                                      "0x1.8p+1024",
                                      "0x1.8p-1023",
                                      "0x1.8p+99999999999999999999",
                                      "0x1.8p+1 ",
                                      " 0x1.8p+1",
                                      "+0x1.8p+1",
                                      "--0x1.8p+1",
                                      "0X1.8p+1",
                                      "0x1.8P+1",
                                      "0x1.Ap+1",
                                      "0x1,8p+1",
                                      "0x2.8p+1",
                                      "0x10.8p+1",
                                      "0x.8p+1",
                                      "x1.8p+1",
                                      "0x1.80000000000000p+1",
                                      "0x1.8gp+1",
                                      "0x1.8p+1f",
                                      "0x1.8p+1.0",
                                      "0x0.8p+0",
                                      "0x0.0p+1",
                                      "0x0.0p-0",
                                      "0x0.0p-1022",
                                      "0x0.8p-1021",
                                      "0x0.8p-1023",
                                      "0x0.8p+1022",
                                      "0x1.8p+0x1"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        CHECK(same_double(read_clip(good[i].text), good[i].number), "%s", good[i].text);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check_option("lstm", "clip", bad[i], "expected a number like 0x1.8p+1");
        check_option("lstm", "cell_clip", bad[i], "'cell_clip' is '");
    }
    check_option("lstm", "clip", "-0x1.8p+1", "'clip' is '-0x1.8p+1', which no lstm net has");
    check_option("lstm", "clip", "0x1.8\\u0070+1", "'clip': an escape in a name");

    /* Doubles of every size, subnormal ones too; half of the bits of some are 0. */
    unsigned long long bits = 1;
    for (size_t i = 0; i < 4000; i++) {
        char text[64] = "";
        double number;
        bits = bits * 6364136223846793005u + 1442695040888963407u;
        unsigned long long some = bits >> 1 & (i % 3 == 0 ? ~0xffffffull : ~0ull);
        if (i % 5 == 0)
            some &= ~(0x7ffull << 52); /* subnormal */
        memcpy(&number, &some, sizeof number);
        if (!isfinite(number))
            continue;
        put_real(text, number);
        CHECK(same_double(read_clip(text), number), "%s", text);
    }
}

static void test_functions(void) {
    static const char *const keys[] = {"activation", "gate_activation", "output_activation"};
    static const char *const parameters[] = {"", "(0x1.0p-1)", "(0x1.0p-1, 0x1.0p-2)",
                                             "(0x1.0p-1, 0x1.0p-2, 0x1.0p-3)"};
    static const char *const expected[] = {"', expected no parameters",
                                           "', expected one parameter like (0x1.8p+1)",
                                           "', expected two parameters like (0x1.8p+1, 0x0.0p+0)"};
    frnn_model model;
    char text[128];
    for (unsigned i = 0; i < 20 * FRNN_ACTIVATION_COUNT; i++) {
        frnn_config net = FRNN_CONFIG(FRNN_CELL_LSTM, 1, 1);
        net.activation = some_function(i);
        net.gate_activation = some_function(i + 1);
        net.output_activation = some_function(i + 2);
        const size_t data_size = build_net(header, tensors, &net, 0);
        CHECK(frnn_model_open(&model, file, build_file(file, header, data_size)) == FRNN_OK, "%s",
              model.message);
        CHECK(same_config(&model.config, &net), "activations from number %u on", i);
    }
    for (size_t f = 0; f < FRNN_ACTIVATION_COUNT; f++) {
        for (int count = 0; count < 4; count++) {
            if (count == functions[f].parameters)
                continue;
            sprintf(text, "%s%s", functions[f].name, parameters[count]);
            check_option("lstm", keys[f % 3], text, expected[functions[f].parameters]);
        }
    }
    static const struct {
        const char *value, *expected;
    } bad[] = {{"", "is '', which is no activation"},
               {"Tanh", "is 'Tanh', which is no activation"},
               {"tan", "is 'tan', which is no activation"},
               {"tanhs", "is 'tanhs', which is no activation"},
               {" tanh", "is ' tanh', which is no activation"},
               {"tanh ", "is 'tanh ', which is no activation"},
               {"(0x1.0p-1)", "is '(0x1.0p-1)', which is no activation"},
               {"tanh()", "expected no parameters"},
               {"tanh(", "expected no parameters"},
               {"elu (0x1.0p-1)", "is 'elu (0x1.0p-1)', which is no activation"},
               {"elu()", "expected one parameter"},
               {"elu(", "expected one parameter"},
               {"elu(0x1.0p-1", "expected one parameter"},
               {"elu(0x1.0p-1))", "expected one parameter"},
               {"elu(0x1.0p-1) ", "expected one parameter"},
               {"elu( 0x1.0p-1)", "expected one parameter"},
               {"elu(0x1.0p-1 )", "expected one parameter"},
               {"elu(0x1.0p-1,)", "expected one parameter"},
               {"elu(0.5)", "expected one parameter"},
               {"elu(inf)", "expected one parameter"},
               {"elu((0x1.0p-1))", "expected one parameter"},
               {"affine(0x1.0p-1 0x1.0p-1)", "expected two parameters"},
               {"affine(0x1.0p-1;0x1.0p-1)", "expected two parameters"},
               {"affine(0x1.0p-1,, 0x1.0p-1)", "expected two parameters"},
               {"affine(0x1.0p-1, nan)", "expected two parameters"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        check_option("lstm", keys[i % 3], bad[i].value, bad[i].expected);
}

/* What no net has is refused under its own name, also beside another option. */
static void test_options(void) {
    static const struct {
        const char *cell, *key, *value;
    } bad[] = {{"gru", "output_activation", "relu"},
               {"rnn", "gate_activation", "tanh"},
               {"rnn", "output_activation", "identity"},
               {"rnn", "cell_clip", "0x1.0p+0"},
               {"gru", "cell_clip", "0x1.0p+0"},
               {"mingru", "gate_activation", "hard_sigmoid(0x1.0p-2, 0x1.0p-1)"},
               {"leaky_rate", "gate_activation", "relu"},
               {"leaky_potential", "clip", "0x1.0p+0"},
               {"leaky", "clip", "0x1.0p+0"},
               {"leaky", "activation", "relu"},
               {"lstm", "clip", "-0x1.0p+0"},
               {"lstm", "cell_clip", "-0x0.0000000000001p-1022"},
               {"lstm", "activation", "leaky_relu(-0x1.0p-1)"},
               {"lstm", "gate_activation", "thresholded_relu(-0x1.0p-1)"},
               {"lstm", "output_activation", "elu(-0x1.0p-1)"},
               {"rnn", "activation", "scaled_tanh(0x0.0p+0, 0x1.0p+0)"}};
    char expected[160];
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sprintf(expected, "'%s' is '%s', which no %s net has", bad[i].key, bad[i].value,
                bad[i].cell);
        check_option(bad[i].cell, bad[i].key, bad[i].value, expected);
    }
    for (size_t cell = 0; cell < FRNN_CELL_COUNT; cell++) {
        if (is_lstm((frnn_cell)cell))
            continue;
        const char *const name = frnn_cell_get((frnn_cell)cell)->name;
        sprintf(long_text,
                "{\"peephole\": true, \"format\":1,\"cell\":\"%s\",\"input_size\":3,"
                "\"hidden_size\":3}",
                name);
        build_header(header, long_text, "");
        sprintf(expected, "'peephole' is 'true', which no %s net has", name);
        check_open(frnn_model_open, name, build_file(file, header, 0), expected);
        sprintf(long_text,
                "{\"format\":1,\"cell\":\"%s\",\"input_size\":3,\"hidden_size\":3,"
                "\"proj_size\" : 2 }",
                name);
        build_header(header, long_text, "");
        sprintf(expected, "'proj_size' is '2', which no %s net has", name);
        check_open(frnn_model_open, name, build_file(file, header, 0), expected);
    }
}

/* A file as it was written before there were options. */
static void test_old_file(void) {
    frnn_model model;
    build_header(header,
                 "{\"format\": 1, \"cell\": \"rnn\", \"activation\": \"relu\", \"input_size\": 3, "
                 "\"hidden_size\": 2, \"num_layers\": 1, \"bidirectional\": false, "
                 "\"bias\": true, \"batch_first\": true}",
                 TENSORS);
    frnn_config net = FRNN_CONFIG(FRNN_CELL_RNN, 3, 2);
    net.activation.kind = FRNN_RELU;
    CHECK(frnn_model_open(&model, file, build_file(file, header, 56)) == FRNN_OK, "%s",
          model.message);
    CHECK(same_config(&model.config, &net) && model.batch_first && !model.go_backwards, "old file");

    /* The default of an activation is that of the cell. */
    build_header(header, "{\"format\":1,\"cell\":\"mingru\",\"input_size\":3,\"hidden_size\":1}",
                 TENSOR("weight_ih_l0", "F32", "[2,3]", 0, 24) "," TENSOR("bias_ih_l0", "F32",
                                                                          "[2]", 24, 32));
    CHECK(frnn_model_open(&model, file, build_file(file, header, 32)) == FRNN_OK, "%s",
          model.message);
    CHECK(model.config.activation.kind == FRNN_IDENTITY, "mingru");
}

int main(void) {
    test_architectures();
    test_fractions();
    test_functions();
    test_options();
    test_old_file();
    return report();
}
