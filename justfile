# Everything that one does with this repository. `just --list` shows it.

set positional-arguments

python := env_var_or_default("MESH_LLM_TEST_VENV", home_directory() / ".cache/mesh-llm/test-venv")

# Build the program.
build *ARGS:
    cargo build --release --package mesh-llm "$@"

# Build and run it: `just run --model FILE`.
run *ARGS:
    cargo run --release --package mesh-llm -- "$@"

# Run every test: unit, property, black-box, and those of the official Python clients.
test:
    cargo test --release --workspace
    @just test-python

# Run the tests of the official Python clients. Like all tests and benches, of the whole workspace: with other features than those
# of `cargo test`, most is compiled once more.
test-python *ARGS:
    cargo build --release --workspace --bins --examples
    test -x "{{python}}/bin/python" || python3 -m venv "{{python}}"
    "{{python}}/bin/pip" install --quiet --requirement mesh-llm/tests/python/requirements.txt
    MESH_LLM_TARGET="${CARGO_TARGET_DIR:-target}" "{{python}}/bin/python" -m pytest mesh-llm/tests/python "$@"

# Run the tests of GPUs on a Vulkan device. One of software will do (mesa-vulkan-drivers); building needs glslc, spirv-headers and
# Vulkan's own headers of 2023 or later.
test-gpu *ARGS:
    cargo test --release --workspace --features mesh-llm/vulkan --test gpu "$@"

# Check form, lints, licences and advisories. The last two need cargo-deny.
lint: lint-code
    cargo deny check

# Check form and lints.
lint-code:
    cargo fmt --all -- --check
    cargo clippy --release --workspace --all-targets -- -D warnings
    cargo clippy --release --package mesh-llm --no-default-features -- -D warnings

# Break a split at random moments for many rounds; `SEED=N LOAD=THREADS just prove-split 1` repeats one, beside such a load.
prove-split ROUNDS="200":
    ROUNDS={{ROUNDS}} cargo test --release --workspace --test split again_and_again -- --nocapture --ignored

# Measure one machine's speed against bare llama.cpp: `just bench-solo [--quick] [--json FILE]`.
bench-solo *ARGS:
    cargo bench --workspace --bench solo -- "$@"

# Measure several machines against llama.cpp's own RPC, as root: `just bench-split [--quick] [--json FILE] [CASE]…`.
bench-split *ARGS:
    cargo bench --workspace --bench split -- "$@"

# Measure what guessing ahead gains, as root: `just bench-spec [--quick] [--fixed] [--json FILE] [CASE]…`.
bench-spec *ARGS:
    cargo bench --workspace --bench spec -- "$@"

# Measure how machines join, leave and ask each other, as root: `just bench-mesh [--quick] [--json FILE] [CASE]…`.
bench-mesh *ARGS:
    cargo bench --workspace --bench mesh -- "$@"

# Make a timeline for trace viewers of a split's log, written with `-vv --log-format json`.
trace-split LOG OUT:
    cargo run --quiet --release --package mesh-llm --example trace_split < "{{LOG}}" > "{{OUT}}"

# All benches: `just bench [--quick]`.
bench *ARGS: (bench-solo ARGS) (bench-split ARGS) (bench-spec ARGS) (bench-mesh ARGS)

# Fuzz a target for some seconds: `just fuzz gguf_reader 600`. Needs a nightly toolchain and cargo-fuzz.
fuzz TARGET SECONDS="60":
    mkdir -p fuzz/target/found/{{TARGET}} fuzz/corpus/{{TARGET}}
    cargo +nightly fuzz run {{TARGET}} fuzz/target/found/{{TARGET}} fuzz/corpus/{{TARGET}} -- -max_total_time={{SECONDS}} -rss_limit_mb=1024 -malloc_limit_mb=256

# Fuzz the check of graphs: what it accepts, ggml computes.
fuzz-graphs SECONDS="600": (_fuzz-native "graph_check" SECONDS "-max_len=20000")

# Fuzz a split's host against workers that lie, or a worker against hosts that do: `just fuzz-split lying_host 600`.
fuzz-split TARGET="lying_worker" SECONDS="600": (_fuzz-native TARGET SECONDS "-max_len=400")

# With llama.cpp, compiled with AddressSanitizer by clang.
_fuzz-native TARGET SECONDS LENGTH:
    mkdir -p fuzz/target/found/{{TARGET}}
    CC=clang CXX=clang++ CFLAGS=-fsanitize=address CXXFLAGS=-fsanitize=address ASAN_OPTIONS=detect_leaks=0 \
        cargo +nightly fuzz run --features native {{TARGET}} fuzz/target/found/{{TARGET}} fuzz/corpus/{{TARGET}} -- \
        -max_total_time={{SECONDS}} {{LENGTH}} -len_control=0 -timeout=150 -rss_limit_mb=4096

# Build what a release ships: for every x86-64 machine since 2013, optimised further.
dist:
    RUSTFLAGS="-C target-cpu=x86-64-v3" cargo build --profile dist --package mesh-llm --target-dir target/dist

# Download a good model for this machine, or the one that is named.
download-model *ARGS="--recommended": build
    "${CARGO_TARGET_DIR:-target}/release/mesh-llm" download {{ARGS}}
