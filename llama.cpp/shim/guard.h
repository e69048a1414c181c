// Turns whatever C++ throws into an error message.

#pragma once

#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

inline char * mesh_dup(const std::string & text) {
    char * copy = static_cast<char *>(std::malloc(text.size() + 1));
    if (copy) {
        std::memcpy(copy, text.data(), text.size());
        copy[text.size()] = '\0';
    }
    return copy;
}

inline void mesh_set(char ** error, const std::string & message) {
    if (error && !*error) {
        *error = mesh_dup(message);
    }
}

// Runs `body`; on an exception sets `error` and returns `failed`.
template <typename T, typename F> T mesh_guard(char ** error, T failed, F && body) {
    try {
        return body();
    } catch (const std::exception & e) {
        mesh_set(error, e.what());
    } catch (...) {
        mesh_set(error, "llama.cpp threw something that is not an exception");
    }
    return failed;
}
