#!/usr/bin/env bash
# Provides a Docker engine and images of PostgreSQL and Redis for tests with containers.
#
#   eval "$(tests/containers.sh start)"     prints what it found, and sets the tests' environment
#   tests/containers.sh stop                stops the engine if the script started it
#
# It uses a running engine and the released images. As root on Debian, it installs and starts an
# engine if none runs, and builds an image from Debian's packages if no registry is reachable.
# It exits with 1 and one line if that fails.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin" DEBIAN_FRONTEND=noninteractive DOCKER_BUILDKIT=0
state=/var/tmp/referral-containers
log=$state/log
debian_image=referral-test-servers
released=(postgres:18-alpine redis:8-alpine)

say() { printf 'containers: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }
engine_runs() { timeout 10 docker version >/dev/null 2>&1; }

install() {
    local missing=()
    command -v dockerd >/dev/null && command -v docker >/dev/null || missing+=(docker.io)
    command -v debootstrap >/dev/null || missing+=(debootstrap)
    command -v iptables >/dev/null || missing+=(iptables)
    grep -q ' cgroup2\? ' /proc/mounts || missing+=(cgroupfs-mount)
    [ "${#missing[@]}" = 0 ] || { apt-get update -qq \
        && apt-get install -qq -y --no-install-recommends "${missing[@]}"; } >>"$log" 2>&1
}

start_engine() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null \
        || fail "no Docker engine is running; start one, or run this as root on Debian"
    install || fail "no Docker engine is running, and Debian's could not be installed"
    grep -q ' cgroup2\? ' /proc/mounts || cgroupfs-mount >>"$log" 2>&1 || true
    export DOCKER_HOST=unix://$state/docker.sock
    if engine_runs; then return; fi
    setsid nohup dockerd --host "$DOCKER_HOST" --data-root "$state/data" \
        --exec-root "$state/exec" --pidfile "$state/pid" >>"$log" 2>&1 </dev/null &
    for _ in $(seq 60); do
        if engine_runs; then return; fi
        sleep 0.5
    done
    fail "the installed Docker engine does not start; see $log"
}

pull() {
    local image
    for image in "${released[@]}"; do
        docker image inspect "$image" >/dev/null 2>&1 \
            || timeout 120 docker pull -q "$image" >>"$log" 2>&1 || return 1
    done
}

# One image for both servers; with POSTGRES_PASSWORD set it runs PostgreSQL.
entrypoint() {
    cat <<'SH'
#!/bin/sh
set -e
[ -n "$POSTGRES_PASSWORD" ] || exec redis-server --protected-mode no --save ""
as() { setpriv --reuid=postgres --regid=postgres --init-groups "$@"; }
data=/var/lib/postgresql/tests
bin=$(echo /usr/lib/postgresql/*/bin)
mkdir -p /run/postgresql
chown postgres /run/postgresql
echo "$POSTGRES_PASSWORD" >/tmp/password
as "$bin/initdb" -D "$data" -U "$POSTGRES_USER" --pwfile=/tmp/password -E UTF8 --locale=C.UTF-8
echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
echo "CREATE DATABASE \"$POSTGRES_DB\"" | as "$bin/postgres" --single -D "$data" postgres
exec setpriv --reuid=postgres --regid=postgres --init-groups \
    "$bin/postgres" -D "$data" -c 'listen_addresses=*'
SH
}

make_debian_image() {
    docker image inspect $debian_image >/dev/null 2>&1 && return
    local root=$state/root suite
    suite=$(. /etc/os-release && echo "$VERSION_CODENAME")
    rm -rf "$root" && mkdir -p "$root/usr/sbin"
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"   # packages start no servers
    chmod +x "$root/usr/sbin/policy-rc.d"
    { debootstrap --variant=minbase --include=postgresql,redis-server \
            "$suite" "$root" "$(debian_mirror)" \
        && entrypoint >"$root/entry" && chmod +x "$root/entry" \
        && tar -C "$root" --exclude='./dev/*' --exclude='./var/cache/apt/*' -c . | docker import \
            --change 'ENTRYPOINT ["/entry"]' --change 'EXPOSE 5432 6379' \
            --change 'ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin' - $debian_image; } >>"$log" 2>&1
    rm -rf "$root"
}

debian_mirror() { # the package mirror of this machine
    apt-get indextargets --format '$(REPO_URI) $(ORIGIN)' 'Created-By: Packages' \
        | awk '/ Debian$/ { print $1; exit }'
}

# In some sandboxes an engine starts, but its containers are unreachable.
is_reachable() {
    local id port reply=
    id=$(timeout 60 docker run -d --rm -p 127.0.0.1::6379 "$1" 2>>"$log") || return 1
    for _ in $(seq 40); do
        port=$(docker port "$id" 6379/tcp 2>>"$log" | head -1) && reply=$(
            exec 3<>"/dev/tcp/127.0.0.1/${port##*:}" && printf 'PING\r\n' >&3 \
                && timeout 2 head -c 5 <&3
        ) 2>/dev/null && [ "$reply" = +PONG ] && break
        sleep 0.5
    done
    docker rm -f "$id" >>"$log" 2>&1
    [ "$reply" = +PONG ]
}

start() {
    mkdir -p $state
    command -v docker >/dev/null && engine_runs || start_engine
    if pull; then
        say "using ${released[*]}"
        set -- "${released[@]}"
    else
        make_debian_image || fail "no registry is reachable, and building an image failed; see $log"
        say "no registry is reachable: using an image of Debian's PostgreSQL and Redis"
        set -- $debian_image $debian_image
        echo "export TESTCONTAINERS_RYUK_DISABLED=true"
    fi
    is_reachable "$2" || { stop; fail "the ports of containers are unreachable; see $log"; }
    echo "export TEST_SERVERS=containers TEST_POSTGRES=$1 TEST_REDIS=$2"
    [ -z "${DOCKER_HOST:-}" ] || echo "export DOCKER_HOST=$DOCKER_HOST"
}

stop() {
    [ -s $state/pid ] && kill "$(cat $state/pid)" || true
}

"${1:?start or stop}"
