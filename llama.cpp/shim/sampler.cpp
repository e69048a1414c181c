// The sampler chain of llama.cpp's `common`, with its grammars.

#include "guard.h"
#include "shim.h"

#include "common.h"
#include "json.h"
#include "sampling.h"

#include <algorithm>
#include <cmath>

struct mesh_sampler {
    common_sampler_ptr sampler;
};

static common_grammar_type read_source(const std::string & source) {
    if (source == "schema") {
        return COMMON_GRAMMAR_TYPE_OUTPUT_FORMAT;
    }
    return source == "tool_calls" ? COMMON_GRAMMAR_TYPE_TOOL_CALLS : COMMON_GRAMMAR_TYPE_USER;
}

static void read_grammar(const common_json & grammar, common_params_sampling & out) {
    out.grammar      = { read_source(grammar.at("source").get<std::string>()), grammar.at("gbnf").get<std::string>() };
    out.grammar_lazy = grammar.at("lazy").get<bool>();
    const auto & triggers = grammar.at("triggers");
    for (size_t i = 0; i < triggers.size(); i++) {
        const auto & item = triggers.at(i);
        out.grammar_triggers.push_back({ (common_grammar_trigger_type) item.at("kind").get<int>(),
                                         item.at("value").get<std::string>(), item.at("token").get<int>() });
    }
}

static common_params_sampling read_params(const llama_vocab * vocab, const common_json & params) {
    common_params_sampling out;
    out.seed            = params.at("seed").get<uint32_t>();
    out.temp            = params.at("temperature").get<float>();
    out.top_k           = params.at("top_k").get<int>();
    out.top_p           = params.at("top_p").get<float>();
    out.min_p           = params.at("min_p").get<float>();
    out.typ_p           = params.at("typical_p").get<float>();
    out.penalty_last_n  = params.at("repeat_last_n").get<int>();
    out.penalty_repeat  = params.at("repeat_penalty").get<float>();
    out.penalty_freq    = params.at("frequency_penalty").get<float>();
    out.penalty_present = params.at("presence_penalty").get<float>();
    out.n_prev          = std::max(out.n_prev, out.penalty_last_n);
    out.no_perf         = true;

    const llama_token n_vocab = llama_vocab_n_tokens(vocab);
    const auto & bias = params.at("logit_bias");
    for (size_t i = 0; i < bias.size(); i++) {
        const llama_token token = bias.at(i).at(0).get<int>();
        if (token < 0 || token >= n_vocab) {
            throw std::invalid_argument("logit_bias names token " + std::to_string(token) +
                                        ", but the vocabulary has " + std::to_string(n_vocab));
        }
        const auto & value = bias.at(i).at(1);
        // JSON knows no infinity: null bans the token
        out.logit_bias.push_back({ token, value.is_null() ? -INFINITY : value.get<float>() });
    }
    if (params.at("ignore_eos").get<bool>()) {
        for (llama_token token = 0; token < n_vocab; token++) {
            if (llama_vocab_is_eog(vocab, token)) {
                out.logit_bias.push_back({ token, -INFINITY });
            }
        }
    }

    out.generation_prompt = params.at("generation_prompt").get<std::string>();
    for (const llama_token token : params.at("preserved_tokens").get<std::vector<int>>()) {
        out.preserved_tokens.insert(token);
    }
    out.reasoning_budget_start = params.at("thinking_start").get<std::vector<int>>();
    const auto & ends = params.at("thinking_ends");
    for (size_t i = 0; i < ends.size(); i++) {
        out.reasoning_budget_end.push_back(ends.at(i).get<std::vector<int>>());
    }
    if (!params.at("grammar").is_null()) {
        read_grammar(params.at("grammar"), out);
    }
    return out;
}

extern "C" mesh_sampler * mesh_sampler_new(const llama_model * model, const char * params, char ** error) {
    return mesh_guard<mesh_sampler *>(error, nullptr, [&]() -> mesh_sampler * {
        auto parsed = read_params(llama_model_get_vocab(model), common_json::parse(params));
        common_sampler_ptr sampler(common_sampler_init(model, parsed));
        if (!sampler) {
            mesh_set(error, "llama.cpp made no sampler of these parameters");
            return nullptr;
        }
        return new mesh_sampler{ std::move(sampler) };
    });
}

extern "C" void mesh_sampler_free(mesh_sampler * sampler) {
    delete sampler;
}

extern "C" int32_t mesh_sampler_sample(mesh_sampler * sampler, llama_context * ctx, int32_t row, llama_token * token,
                                       char ** error) {
    return mesh_guard<int32_t>(error, -1, [&] {
        *token = common_sampler_sample(sampler->sampler.get(), ctx, row);
        // Where nothing is left, llama.cpp selects something all the same, and the grammar then aborts on it.
        const auto * left = common_sampler_get_candidates(sampler->sampler.get(), false);
        if (left->selected < 0 || !std::isfinite(left->data[left->selected].logit)) {
            throw std::invalid_argument("the grammar, the bans of logit_bias and the model leave no token to choose");
        }
        return 0;
    });
}

extern "C" int32_t mesh_sampler_accept(mesh_sampler * sampler, llama_token token, bool generated, char ** error) {
    return mesh_guard<int32_t>(error, -1, [&] {
        common_sampler_accept(sampler->sampler.get(), token, generated);
        return 0;
    });
}
