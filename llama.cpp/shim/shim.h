// The border between Rust and llama.cpp's `common`, as thin as can be.
//
// No C++ exception crosses it: a function that can fail returns null or a negative number and, where
// it takes `error`, sets that to a message. Strings that come out are freed with mesh_string_free.
// Structured arguments and results travel as JSON; the Rust types beside each caller say what is in it.

#pragma once

#include "llama.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct mesh_chat_templates;
struct mesh_chat_parser;
struct mesh_sampler;

// Graphs with the same number, which is not 0, are the same.
uint64_t mesh_graph_uid(const struct ggml_cgraph * graph);

void mesh_string_free(char * text);

// Turns off the log of `common`, which knows no callback; what matters comes back as errors.
void mesh_silence_common(void);

// Guarded versions of calls that throw on hostile or odd input.
struct llama_model *   mesh_model_load(const char * path, struct llama_model_params params, char ** error);
struct llama_context * mesh_context_new(struct llama_model * model, struct llama_context_params params, char ** error);
// 0 done, 1 no room in the KV cache, 2 aborted, negative: failed.
int32_t mesh_decode(struct llama_context * ctx, struct llama_batch batch, char ** error);
// Has a context keep the hidden state of each token, for layers that guess the tokens after the next one. What it
// reserved before does not count any more.
void mesh_keep_hidden(struct llama_context * ctx);
// Has a context keep what one of its layers is given for each token. Aborts where there is no such layer, and, at the next
// step, where llama.cpp's graph of the architecture does not say what its layers are given.
void mesh_keep_layer_input(struct llama_context * ctx, uint32_t layer);
// What that layer was given for the tokens of the last batch, one after the other; null if it was not kept.
const float * mesh_layer_inputs(struct llama_context * ctx, uint32_t layer, char ** error);
// How many layers of another model a model wants the inputs of: none, unless it guesses for that one.
uint32_t mesh_target_layer_count(const struct llama_model * model);
// Runs an encoder. 0 done, negative: failed.
int32_t mesh_encode(struct llama_context * ctx, struct llama_batch batch, char ** error);
// The hidden state of a token of the last batch, which must have one; null if there is none.
const float * mesh_hidden_state(struct llama_context * ctx, int32_t index, char ** error);
// Waits for the device; a failed step says so here.
int32_t mesh_synchronize(struct llama_context * ctx, char ** error);
// What the KV cache has of a sequence, as bytes: how many there are; written, 0 on failure; read, 0 on failure.
size_t mesh_state_size(struct llama_context * ctx, int32_t sequence, char ** error);
size_t mesh_state_get(struct llama_context * ctx, int32_t sequence, uint8_t * bytes, size_t size, char ** error);
size_t mesh_state_set(struct llama_context * ctx, int32_t sequence, const uint8_t * bytes, size_t size, char ** error);
// Number of tokens, or the negative number of tokens that there would be; INT32_MIN on failure.
int32_t mesh_tokenize(const struct llama_vocab * vocab, const char * text, int32_t text_len, llama_token * tokens,
                      int32_t capacity, bool add_special, bool parse_special, char ** error);

// What a context and its model take on each device, or would take if they were allocated. JSON, or null.
char * mesh_memory(const struct llama_context * ctx, char ** error);

char * mesh_json_schema_to_grammar(const char * schema, char ** error);

// `source` overrides the model's own template where it is not null.
struct mesh_chat_templates * mesh_chat_templates_new(const struct llama_model * model, const char * source, char ** error);
void   mesh_chat_templates_free(struct mesh_chat_templates * templates);
char * mesh_chat_templates_source(const struct mesh_chat_templates * templates);
char * mesh_chat_templates_capabilities(const struct mesh_chat_templates * templates);
char * mesh_chat_apply(const struct mesh_chat_templates * templates, const char * request, char ** error);

struct mesh_chat_parser * mesh_chat_parser_new(const char * format, char ** error);
void   mesh_chat_parser_free(struct mesh_chat_parser * parser);
// What `text`, the whole answer so far, adds to the message: a JSON array of deltas.
char * mesh_chat_parser_update(struct mesh_chat_parser * parser, const char * text, size_t text_len, bool partial, char ** error);

struct mesh_sampler * mesh_sampler_new(const struct llama_model * model, const char * params, char ** error);
void    mesh_sampler_free(struct mesh_sampler * sampler);
// Chooses from row `row` of the last step's logits; does not accept it yet.
int32_t mesh_sampler_sample(struct mesh_sampler * sampler, struct llama_context * ctx, int32_t row, llama_token * token, char ** error);
int32_t mesh_sampler_accept(struct mesh_sampler * sampler, llama_token token, bool generated, char ** error);

#ifdef __cplusplus
}
#endif
