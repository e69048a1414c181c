// What of a graph only ggml's internal headers know.

#include "shim.h"

#include "ggml-impl.h"

extern "C" uint64_t mesh_graph_uid(const ggml_cgraph * graph) {
    return graph->uid;
}
