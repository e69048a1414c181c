// Loading, decoding, tokenizing and measuring memory.

#include "guard.h"
#include "shim.h"

#include "common.h"
#include "json-schema-to-grammar.h"
#include "json.h"
#include "log.h"
// What llama.cpp's own programs use beside its public header: functions of the library, though of C++.
#include "../src/llama-ext.h"

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

extern "C" uint32_t mesh_target_layer_count(const llama_model * model) {
    return llama_model_target_layer_ids_n(model);
}

extern "C" int32_t mesh_encode(llama_context * ctx, llama_batch batch, char ** error) {
    return mesh_guard<int32_t>(error, -100, [&] { return llama_encode(ctx, batch); });
}

extern "C" void mesh_keep_layer_input(llama_context * ctx, uint32_t layer) {
    llama_set_embeddings_layer_inp(ctx, layer, true);
}

extern "C" const float * mesh_layer_inputs(llama_context * ctx, uint32_t layer, char ** error) {
    return mesh_guard<const float *>(error, nullptr, [&] { return llama_get_embeddings_layer_inp(ctx, layer); });
}

extern "C" void mesh_keep_hidden(llama_context * ctx) {
    // Those of outputs alone ("masked") would be the wrong ones: graphs of such layers give the states of all tokens,
    // of which llama.cpp then takes the first.
    llama_set_embeddings_nextn(ctx, true, /* masked */ false);
    // That alone leaves the compute buffers as they were reserved for graphs without hidden states, and llama.cpp
    // would make them larger in the middle of something. There is no control vector: taking it away has the next
    // step reserve anew.
    llama_set_adapter_cvec(ctx, nullptr, 0, 0, 0, 0);
}

extern "C" const float * mesh_hidden_state(llama_context * ctx, int32_t index, char ** error) {
    return mesh_guard<const float *>(error, nullptr, [&] { return llama_get_embeddings_nextn_ith(ctx, index); });
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

// Whose memory a buffer of this type is in: a device of the model by its number, the host's after the last, or -1.
static int mesh_device_of(const llama_model * model, ggml_backend_buffer_type_t type) {
    const int devices = llama_model_n_devices(model);
    const auto device = ggml_backend_buft_get_device(type);
    // The CPU's own layouts are in the host's memory, though nobody else can read them.
    if (ggml_backend_buft_is_host(type) || (device && ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU)) {
        return devices;
    }
    for (int i = 0; i < devices; i++) {
        if (device == llama_model_get_device(model, i)) {
            return device ? i : -1;
        }
    }
    return -1;
}

extern "C" char * mesh_memory(const llama_context * context, char ** error) {
    return mesh_guard<char *>(error, nullptr, [&] {
        const llama_model * model = llama_get_model(context);
        const int devices = llama_model_n_devices(model);
        std::vector<llama_memory_breakdown_data> need(devices + 1);
        for (const auto & [type, of_type] : llama_get_memory_breakdown(context)) {
            const int device = mesh_device_of(model, type);
            if (device >= 0) {
                need[device].model   += of_type.model;
                need[device].context += of_type.context;
                need[device].compute += of_type.compute;
            }
        }
        size_t host_free = 0, host_total = 0;
        ggml_backend_dev_memory(ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU), &host_free, &host_total);
        common_json list = common_json::array();
        for (int i = 0; i <= devices; i++) {
            size_t free = host_free, total = host_total;
            std::string name = "host";
            if (i < devices) {
                const auto own  = llama_model_get_device(model, i);
                const auto type = ggml_backend_dev_type(own);
                name = ggml_backend_dev_name(own);
                ggml_backend_dev_memory(own, &free, &total);
                // Accelerators without memory of their own, such as BLAS, compute in the host's.
                if (total == 0 && type != GGML_BACKEND_DEVICE_TYPE_GPU && type != GGML_BACKEND_DEVICE_TYPE_IGPU) {
                    free = host_free;
                }
            }
            common_json device = common_json::object();
            device["name"]    = name;
            device["free"]    = (uint64_t) free;
            device["model"]   = (uint64_t) need[i].model;
            device["context"] = (uint64_t) need[i].context;
            device["compute"] = (uint64_t) need[i].compute;
            list.push_back(device);
        }
        common_json out = common_json::object();
        out["devices"] = list;
        return mesh_dup(out.dump_safe());
    });
}

extern "C" char * mesh_json_schema_to_grammar(const char * schema, char ** error) {
    return mesh_guard<char *>(error, nullptr,
                              [&] { return mesh_dup(json_schema_to_grammar(common_json::parse(schema))); });
}
