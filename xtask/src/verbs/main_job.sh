# The main job over RDMA devices: real nodes as `ssi cluster init` and `ssi node join` make them, each at the addresses of its own two
# devices, and between them files, processes and an MPI job. In the end the fabric itself must say that verbs carried all of it.
# $SSI and $HEAT are set; every node has a directory, /tmp/nK, and a shell in its view, `on K COMMAND..`.
set -eu
nodes=$SSI_VERBS_NODES
begun=$(cut -d. -f1 /proc/uptime)

fail() {
    echo "FAILED: $*"
    for log in /tmp/n*/*.log /tmp/keeper*; do echo "--- $log"; tail -n 5 "$log"; done
    exit 1
}
told() { echo "test vm main job: $* ($(($(cut -d. -f1 /proc/uptime) - begun)) s)"; }
# `within SECONDS WHAT COMMAND..`: the command succeeds within that time. Looking costs an emulated machine so much that the nodes would
# miss each other's heartbeats if it never paused.
within() {
    limit=$(($(cut -d. -f1 /proc/uptime) + $1)); what=$2; shift 2
    until "$@"; do
        [ "$(cut -d. -f1 /proc/uptime)" -lt "$limit" ] || fail "not in time: $what"
        sleep 1
    done
}
on() { node=$1; shift; "$SSI" --dir "/tmp/n$node" shell -- "$@"; }
up() { [ "$("$SSI" --dir "/tmp/n$1" nodes 2> /dev/null | grep -c ' UP ')" = "$2" ]; }

# --- the cluster
start() {
    # Verbs or, while a device is not ready, TCP: these nodes could share memory, but machines could not.
    sed -i 's/^providers = .*/providers = ["verbs", "tcp"]/' "/tmp/n$1/node.toml"
    grep -q '^providers = \["verbs", "tcp"\]' "/tmp/n$1/node.toml" || fail "node.toml has no providers"
    "$SSI" --dir "/tmp/n$1" node start > "/tmp/keeper$1" 2>&1 &
}
place() { echo "--address 10.77.0.$1 --rail 10.78.0.$1 --name node$1 --cpus 1"; }
# shellcheck disable=SC2046 # these are several words
"$SSI" --dir /tmp/n1 cluster init $(place 1) > /dev/null
start 1
within 60 "node 1 is UP" up 1 1
for node in $(seq 2 "$nodes"); do
    # shellcheck disable=SC2046
    "$SSI" --dir "/tmp/n$node" node join 10.77.0.1:7100 --key /tmp/n1/key $(place "$node") > /dev/null
    start "$node"
done
for node in $(seq "$nodes"); do within 90 "node $node sees all UP" up "$node" "$nodes"; done
told "$nodes nodes are UP"

# --- one file system
on 1 mkdir /ssi/job
# shellcheck disable=SC2016 # the view's shell expands it
on 1 sh -c 'head -c 4194304 /dev/urandom > /ssi/job/bytes; cp "$1" /ssi/job/heat' sh "$HEAT"
sum=$(on 1 sha256sum /ssi/job/bytes)
for node in $(seq 2 "$nodes"); do
    [ "$(on "$node" sha256sum /ssi/job/bytes)" = "$sum" ] || fail "node $node reads other bytes than node 1 wrote"
done
on "$nodes" cmp /ssi/job/heat "$HEAT" || fail "the program was copied wrongly"
told "4 MiB that node 1 wrote are read on every node"

# --- one pid space
[ "$(on 1 onnode 2 hostname)" = node2 ] || fail "onnode 2 hostname"
on 1 onnode 2 sh -c 'exec sleep 7654' > /tmp/slept 2>&1 &
sleeper=$!
sleeps() { pid=$(on "$nodes" pgrep -f '^sleep 7654$' | head -n 1); [ -n "$pid" ]; }
within 30 "node $nodes sees a process of node 2" sleeps
[ "$(on "$nodes" where_pid "$pid")" = 2 ] || fail "where_pid $pid: $(on "$nodes" where_pid "$pid")"
on "$nodes" ps -ef | grep -q '[s]leep 7654' || fail "ps -ef on node $nodes does not show it"
on "$nodes" kill -TERM "$pid"
code=0; wait "$sleeper" || code=$?
[ "$code" = 143 ] || fail "its onnode on node 1 ended with $code, not by SIGTERM"
told "process $pid of node 2: seen and killed from node $nodes, its end told on node 1"

# --- one job: a rank a node. What its ranks say to each other is MPI's own affair, and UCX must not find the devices: Soft-RoCE's datagrams
# are too unsure for it.
plate() { printf 'P5\n48 32\n255\n'; head -c 768 /dev/zero | tr '\0' '\377'; head -c 768 /dev/zero | tr '\0' '\200'; }
plate > /tmp/plate.pgm
on 1 cp /tmp/plate.pgm /ssi/job/plate.pgm
on 1 env UCX_TLS=tcp,self ssirun -n "$nodes" -ppn 1 /ssi/job/heat -s 40 -k 20 -o /ssi/job/result /ssi/job/plate.pgm ||
    fail "ssirun: exit code $?"
results=$(on "$nodes" sh -c 'ls /ssi/job/result*') || fail "the job left no result"
told "an MPI job of $nodes ranks, one a node:" $results

# --- who carried it: node, provider, state, bytes sent and received, a line a rail to another node
rails() {
    for node in $(seq "$nodes"); do
        "$SSI" --dir "/tmp/n$node" fabric status --json | awk -v node="$node" '
            { key = $1; gsub(/[":]/, "", key); value = $2; gsub(/[",]/, "", value) }
            /^ *}/ {
                if (rail["provider"] && rail["place"] !~ "^10[.]7[78][.]0[.]" node ":")
                    print node, rail["provider"], rail["state"], rail["sent"] + rail["received"]
                split("", rail)
            }
            NF == 2 { rail[key] = value }'
    done
}
rails > /tmp/rails
awk '
    $3 == "calls" { carried[$1 " " $2]++ }
    { bytes[$2] += $4 }
    END {
        for (who in carried) print "calls: node " who ", " carried[who] " lanes"
        for (by in bytes) print "bytes: " by ", " bytes[by]
    }' /tmp/rails | sort
for node in $(seq "$nodes"); do
    grep -q "^$node verbs calls" /tmp/rails || fail "no calls of node $node go over verbs"
done
if grep ' calls ' /tmp/rails | grep -v ' verbs '; then fail "calls between nodes go another way"; fi
# By TCP went what could not wait until a device was ready; the rest is 4 MiB of files, twice at least.
awk '{ bytes[$2] += $4 } END { exit !(bytes["verbs"] > 8388608 && bytes["tcp"] < bytes["verbs"] / 20) }' /tmp/rails ||
    fail "verbs did not carry nearly all bytes"

# --- the end
for node in $(seq "$nodes"); do "$SSI" --dir "/tmp/n$node" node stop; done
wait
told "verbs carried all of it; the nodes have ended"
