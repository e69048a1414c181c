#!/bin/sh
# A llama-server for the tests of the supervisor. What it does is the model's name.
for word in "$@"; do
    case "$previous" in
    --model-name) name=$word ;;
    --model) model=$word ;;
    esac
    previous=$word
done
say() { printf '%s\n' "$1"; }
ready='{"status":"ready","address":"unix:/nowhere","context":1,"slots":1,"gpu_layers":0,"model_bytes":0,"context_bytes":0}'

case "$name" in
serves)
    say '{"status":"checking"}'
    say 'something else'
    say '{"status":"loading","percent":50}'
    say "$ready"
    # Ends by SIGTERM, or when the daemon does.
    exec cat >/dev/null
    ;;
lingers)
    say "$ready"
    trap '' TERM
    exec cat >/dev/null
    ;;
loads)
    say '{"status":"loading","percent":50}'
    trap '' TERM
    exec cat >/dev/null
    ;;
aborts)
    say '{"status":"checking"}'
    echo 'GGML_ASSERT(x) failed' >&2
    kill -ABRT $$
    ;;
crashes-once)
    # The file of its model, which nobody made.
    if [ -e "$model" ]; then say "$ready"; exec cat >/dev/null; fi
    : >"$model"
    kill -KILL $$
    ;;
loses-a-node)
    # The file of its model has a line for each start.
    echo start >>"$model"
    case $(($(wc -l <"$model"))) in
    1)
        say "$ready"
        say '{"status":"lost","message":"worker 10.0.0.2:9338: connection reset"}'
        exit 75
        ;;
    2 | 3)
        say '{"status":"checking"}'
        say '{"status":"refused","reason":"worker","message":"worker 10.0.0.2:9338: connection refused"}'
        exit 76
        ;;
    *)
        say '{"status":"checking"}'
        say '{"status":"loading","percent":50}'
        say "$ready"
        exec cat >/dev/null
        ;;
    esac
    ;;
hangs-after-a-loss)
    say "$ready"
    say '{"status":"lost","message":"worker 10.0.0.2:9338: connection reset"}'
    exec cat >/dev/null
    ;;
waits-for-a-worker)
    say '{"status":"refused","reason":"worker","message":"worker 10.0.0.2:9338: connection refused"}'
    exit 76
    ;;
refuses)
    say '{"status":"refused","reason":"memory","message":"needs 43.1 GB, 24.0 GB free"}'
    exit 71
    ;;
misunderstands)
    echo 'unexpected argument' >&2
    exit 2
    ;;
confuses)
    say '{"status":"ready","address":"here","context":1,"slots":1,"gpu_layers":0,"model_bytes":0,"context_bytes":0}'
    exec cat >/dev/null
    ;;
esac
