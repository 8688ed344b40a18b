# gateway.sh: sourced by the checks: a gateway of its own for each, on free ports of 127.0.0.1, its data under out/e2e/NAME
# (ROOST_SCRATCH/NAME).
#   gateway_begin NAME; gateway_configure SECTION "KEY = VALUE"…; gateway_start; …; gateway_stop
# Sets gateway_url, gateway_admin_url, gateway_port, gateway_admin_port, gateway_pid, gateway_dir. A restart keeps data and ports. Only
# this gateway's own process is ever signalled; it ends with the script, however that ends.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
gateway_binary=${ROOST_BINARY:-$PWD/out/release/bin/roost}
gateway_pid='' gateway_port=0 gateway_admin_port=0
gateway_hashing=$'hash_memory = 8 KiB\nhash_passes = 1' # so that logins cost the checks nothing
checks=0

ok() {
    checks=$((checks + 1))
    echo "ok    $*"
}

fail() {
    echo "FAIL  $*" >&2
    [ -f "${gateway_dir:-/nonexistent}/log" ] && tail -n 20 "$gateway_dir/log" | sed 's/^/      gateway: /' >&2
    exit 1
}

# expect WHAT EXPECTED ACTUAL: both texts are the same
expect() {
    [ "$2" = "$3" ] || fail "$1: expected '$2', got '$3'"
    ok "$1"
}

gateway_begin() { # NAME
    [ -x "$gateway_binary" ] || fail "$gateway_binary is missing: make BUILD=release build"
    gateway_dir=${ROOST_SCRATCH:-$PWD/out/e2e}/$1
    rm -rf "$gateway_dir"
    mkdir -p "$gateway_dir"
    : >"$gateway_dir/extra.ini"
    trap gateway_end EXIT
}

gateway_configure() { # SECTION LINE…
    { printf '[%s]\n' "$1" && shift && printf '%s\n' "$@"; } >>"$gateway_dir/extra.ini"
}

gateway_start() {
    {
        printf '[listen]\naddress = 127.0.0.1:%s\nadmin_address = 127.0.0.1:%s\n' $gateway_port $gateway_admin_port
        printf '[store]\ndirectory = %s/data\nsegment_size = 8 MiB\nreserve_size = 0\n' "$gateway_dir"
        printf '[shards]\ncount = 2\npin = no\n[limits]\nmax_connections = 2000\n[auth]\n%s\n' "$gateway_hashing"
        cat "$gateway_dir/extra.ini"
    } >"$gateway_dir/roost.ini"
    : >"$gateway_dir/start"
    "$gateway_binary" serve --config "$gateway_dir/roost.ini" >"$gateway_dir/start" 2>>"$gateway_dir/log" </dev/null &
    gateway_pid=$!
    for _ in $(seq 200); do
        gateway_port=$(sed -nE 's|.*wss://localhost:([0-9]+)/connect.*|\1|p' "$gateway_dir/start")
        gateway_admin_port=$(sed -nE 's|.*https://127.0.0.1:([0-9]+)/readyz.*|\1|p' "$gateway_dir/start")
        gateway_url=https://127.0.0.1:$gateway_port
        gateway_admin_url=https://127.0.0.1:$gateway_admin_port
        [ -n "$gateway_port" ] && [ -n "$gateway_admin_port" ] && curl -ksf "$gateway_admin_url/readyz" >/dev/null && return
        kill -0 "$gateway_pid" 2>/dev/null || break
        sleep 0.05
    done
    fail "the gateway did not become ready"
}

gateway_stop() { # it must end by itself, with status 0
    kill -TERM "$gateway_pid"
    local status=0
    wait "$gateway_pid" || status=$?
    gateway_pid=''
    expect "SIGTERM ends the gateway with status 0" 0 $status
}

gateway_end() {
    local status=$?
    if [ -n "$gateway_pid" ]; then
        kill -KILL "$gateway_pid" 2>/dev/null
        wait "$gateway_pid" 2>/dev/null
    fi
    [ $status -ne 0 ] || { rm -rf "$gateway_dir/data" && echo "$checks checks"; }
    exit $status
}

gateway_metric() { # NAME[{LABELS}]
    curl -ksf "$gateway_admin_url/metrics" | awk -v name="$1" '$1 == name { print $2 }'
}

# node_modules from the committed lock file; npm is asked only when the lock file is another than the installed one's
node_install() {
    local lock=tests/e2e/package-lock.json
    export NODE_PATH=$PWD/out/node/node_modules
    cmp -s $lock out/node/installed.json && return
    mkdir -p out/node
    cp tests/e2e/package.json $lock out/node/
    (cd out/node && npm ci --ignore-scripts --no-audit --no-fund) >out/node/npm.log 2>&1 ||
        { tail -n 5 out/node/npm.log >&2 && fail "npm ci in out/node"; }
    cp $lock out/node/installed.json
}
