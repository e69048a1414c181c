// Loading, decoding, tokenizing and measuring memory.

#include "guard.h"
#include "shim.h"

#include "common.h"
#include "fit.h"
#include "json-schema-to-grammar.h"
#include "json.h"
#include "log.h"

#include <climits>
#include <vector>

extern "C" void mesh_string_free(char * text) {
    std::free(text);
}

extern "C" void mesh_silence_common(void) {
    common_log_set_verbosity_thold(-1);
}

extern "C" llama_model * mesh_model_load(const char * path, llama_model_params params, char ** error) {
    return mesh_guard<llama_model *>(error, nullptr, [&] { return llama_model_load_from_file(path, params); });
}

extern "C" llama_context * mesh_context_new(llama_model * model, llama_context_params params, char ** error) {
    return mesh_guard<llama_context *>(error, nullptr, [&] { return llama_init_from_model(model, params); });
}

extern "C" int32_t mesh_decode(llama_context * ctx, llama_batch batch, char ** error) {
    return mesh_guard<int32_t>(error, -100, [&] { return llama_decode(ctx, batch); });
}

extern "C" int32_t mesh_synchronize(llama_context * ctx, char ** error) {
    return mesh_guard<int32_t>(error, -100, [&] {
        llama_synchronize(ctx);
        return 0;
    });
}

extern "C" size_t mesh_state_size(llama_context * ctx, int32_t sequence, char ** error) {
    return mesh_guard<size_t>(error, 0, [&] { return llama_state_seq_get_size(ctx, sequence); });
}

extern "C" size_t mesh_state_get(llama_context * ctx, int32_t sequence, uint8_t * bytes, size_t size, char ** error) {
    return mesh_guard<size_t>(error, 0, [&] { return llama_state_seq_get_data(ctx, bytes, size, sequence); });
}

extern "C" size_t mesh_state_set(llama_context * ctx, int32_t sequence, const uint8_t * bytes, size_t size,
                                 char ** error) {
    return mesh_guard<size_t>(error, 0, [&] { return llama_state_seq_set_data(ctx, bytes, size, sequence); });
}

extern "C" int32_t mesh_tokenize(const llama_vocab * vocab, const char * text, int32_t text_len, llama_token * tokens,
                                 int32_t capacity, bool add_special, bool parse_special, char ** error) {
    return mesh_guard<int32_t>(error, INT32_MIN, [&] {
        return llama_tokenize(vocab, text, text_len, tokens, capacity, add_special, parse_special);
    });
}

extern "C" char * mesh_memory_need(const char * path, const llama_model_params * model_params,
                                   const llama_context_params * context_params, char ** error) {
    return mesh_guard<char *>(error, nullptr, [&] {
        std::vector<ggml_backend_dev_t> devices;
        uint32_t layers = 0, context_train = 0, experts = 0;
        const auto need = common_get_device_memory_data(path, model_params, context_params, devices, layers,
                                                        context_train, experts, GGML_LOG_LEVEL_ERROR);
        common_json list = common_json::array();
        for (size_t i = 0; i < need.size(); i++) {
            common_json device = common_json::object();
            device["name"]    = i < devices.size() ? std::string(ggml_backend_dev_name(devices[i])) : std::string("host");
            device["free"]    = (uint64_t) need[i].free;
            device["model"]   = (uint64_t) need[i].model;
            device["context"] = (uint64_t) need[i].context;
            device["compute"] = (uint64_t) need[i].compute;
            list.push_back(device);
        }
        common_json out = common_json::object();
        out["devices"]  = list;
        return mesh_dup(out.dump_safe());
    });
}

extern "C" char * mesh_json_schema_to_grammar(const char * schema, char ** error) {
    return mesh_guard<char *>(error, nullptr,
                              [&] { return mesh_dup(json_schema_to_grammar(common_json::parse(schema))); });
}
