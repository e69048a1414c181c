// Chat templates, and the way back from a model's text to a message.

#include "guard.h"
#include "shim.h"

#include "chat.h"
#include "common.h"
#include "json.h"

#include <random>
#include <string>
#include <vector>

struct mesh_chat_templates {
    common_chat_templates_ptr templates;
};

struct mesh_chat_parser {
    common_chat_parser_params params;
    common_chat_msg           message;
    std::vector<std::string>  tool_call_ids;
};

static std::string new_tool_call_id() {
    static const char  alphabet[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    std::random_device source;
    std::string        id = "call_";
    for (int i = 0; i < 24; i++) {
        id += alphabet[source() % (sizeof(alphabet) - 1)];
    }
    return id;
}

extern "C" mesh_chat_templates * mesh_chat_templates_new(const llama_model * model, const char * source, char ** error) {
    return mesh_guard<mesh_chat_templates *>(error, nullptr, [&] {
        return new mesh_chat_templates{ common_chat_templates_init(model, source ? source : "") };
    });
}

extern "C" void mesh_chat_templates_free(mesh_chat_templates * templates) {
    delete templates;
}

extern "C" char * mesh_chat_templates_source(const mesh_chat_templates * templates) {
    return mesh_guard<char *>(nullptr, nullptr,
                              [&] { return mesh_dup(common_chat_templates_source(templates->templates.get())); });
}

extern "C" char * mesh_chat_templates_capabilities(const mesh_chat_templates * templates) {
    return mesh_guard<char *>(nullptr, nullptr, [&] {
        common_json out = common_json::object();
        for (const auto & [name, value] : common_chat_templates_get_caps(templates->templates.get())) {
            out[name] = value;
        }
        return mesh_dup(out.dump_safe());
    });
}

static common_chat_templates_inputs read_request(const common_json & request) {
    common_chat_templates_inputs inputs;
    inputs.messages              = common_chat_msgs_parse_oaicompat(request.at("messages"));
    inputs.add_generation_prompt = request.at("add_generation_prompt").get<bool>();
    inputs.parallel_tool_calls   = request.at("parallel_tool_calls").get<bool>();
    inputs.enable_thinking       = request.at("enable_thinking").get<bool>();
    inputs.tool_choice = common_chat_tool_choice_parse_oaicompat(request.at("tool_choice").get<std::string>());
    inputs.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
    if (request.contains("tools") && !request.at("tools").is_null()) {
        inputs.tools = common_chat_tools_parse_oaicompat(request.at("tools"));
    }
    if (request.contains("json_schema") && !request.at("json_schema").is_null()) {
        inputs.json_schema = request.at("json_schema").dump();
    }
    if (request.contains("grammar") && !request.at("grammar").is_null()) {
        inputs.grammar = request.at("grammar").get<std::string>();
    }
    common_json kwargs = request.at("template_kwargs");
    for (const auto & entry : kwargs.items()) {
        inputs.chat_template_kwargs[entry.key()] = entry.value().dump();
    }
    return inputs;
}

extern "C" char * mesh_chat_apply(const mesh_chat_templates * templates, const char * request, char ** error) {
    return mesh_guard<char *>(error, nullptr, [&] {
        const auto inputs = read_request(common_json::parse(request));
        const auto params = common_chat_templates_apply(templates->templates.get(), inputs);

        common_json triggers = common_json::array();
        for (const auto & trigger : params.grammar_triggers) {
            common_json item = common_json::object();
            item["kind"]     = (int) trigger.type;
            item["value"]    = trigger.value;
            item["token"]    = trigger.token;
            triggers.push_back(item);
        }
        common_json format          = common_json::object();
        format["format"]            = (int) params.format;
        format["generation_prompt"] = params.generation_prompt;
        format["parser"]            = params.parser;

        common_json out           = common_json::object();
        out["prompt"]             = params.prompt;
        out["grammar"]            = params.grammar;
        out["grammar_lazy"]       = params.grammar_lazy;
        out["grammar_triggers"]   = triggers;
        out["preserved_tokens"]   = params.preserved_tokens;
        out["additional_stops"]   = params.additional_stops;
        out["generation_prompt"]  = params.generation_prompt;
        out["thinking_start_tag"] = params.thinking_start_tag;
        out["thinking_end_tags"]  = params.thinking_end_tags;
        out["format"]             = format;
        return mesh_dup(out.dump_safe());
    });
}

extern "C" mesh_chat_parser * mesh_chat_parser_new(const char * format, char ** error) {
    return mesh_guard<mesh_chat_parser *>(error, nullptr, [&] {
        const auto options             = common_json::parse(format);
        auto       parser              = std::make_unique<mesh_chat_parser>();
        parser->params.format          = (common_chat_format) options.at("format").get<int>();
        parser->params.reasoning_format = COMMON_REASONING_FORMAT_DEEPSEEK;
        parser->params.generation_prompt = options.at("generation_prompt").get<std::string>();
        parser->params.parse_tool_calls = options.at("parse_tool_calls").get<bool>();
        const auto rules = options.at("parser").get<std::string>();
        if (!rules.empty()) {
            parser->params.parser.load(rules);
        }
        return parser.release();
    });
}

extern "C" void mesh_chat_parser_free(mesh_chat_parser * parser) {
    delete parser;
}

extern "C" char * mesh_chat_parser_update(mesh_chat_parser * parser, const char * text, size_t text_len, bool partial,
                                          char ** error) {
    return mesh_guard<char *>(error, nullptr, [&] {
        auto message = common_chat_parse(std::string(text, text_len), partial, parser->params);
        if (partial && message.empty()) {
            return mesh_dup("[]");
        }
        message.set_tool_call_ids(parser->tool_call_ids, new_tool_call_id);

        common_json deltas = common_json::array();
        for (const auto & diff : common_chat_msg_diff::compute_diffs(parser->message, message)) {
            common_json delta = common_json::object();
            if (!diff.reasoning_content_delta.empty()) {
                delta["reasoning"] = diff.reasoning_content_delta;
            } else if (!diff.content_delta.empty()) {
                delta["content"] = diff.content_delta;
            } else if (diff.tool_call_index != std::string::npos) {
                delta["index"]     = (uint64_t) diff.tool_call_index;
                delta["id"]        = diff.tool_call_delta.id;
                delta["name"]      = diff.tool_call_delta.name;
                delta["arguments"] = diff.tool_call_delta.arguments;
            } else {
                continue;
            }
            deltas.push_back(delta);
        }
        parser->message = std::move(message);
        return mesh_dup(deltas.dump_safe());
    });
}
