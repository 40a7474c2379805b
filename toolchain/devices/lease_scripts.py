"""What leases do on a device, in the shell's words: what dash and busybox both understand.

    /tmp/slipway.lease/            of the machine, not of a user; $SLIPWAY_LEASE names another one
        state                      token, counter, boot, expires, since, ttl, owner, work folder: a
                                   line each; the token is empty while nobody holds the lease
        run.<pid>.<start>          boot, process and its start, of each script that a holder runs

The folder itself is what flock(1) locks: it needs no file that some account cannot open. It is open
to all accounts, so what others may have put there is neither followed nor believed: a new state is
made under a new name and renamed, and a process is ended only if its file is by its own user.
All names start with l_, so that a fence disturbs no script behind it. They and the scripts are
short because they travel with each command, and some servers take no more than 9000 characters.
Time is that of /proc/uptime, in hundredths of a second of this boot: setting the clock moves
nothing, and another boot's lease is void.
"""

from __future__ import annotations

import re
import shlex

from toolchain.devices import scripts


def _short(script: str) -> str:
    return re.sub(r"(?m)^ +", "", script)


_COMMON = r"""
l_at=${SLIPWAY_LEASE:-/tmp/slipway.lease}
l_stop() { printf 'slipway: %s\n' "$1" >&2; exit 97; }
l_nap() { sleep 0.1 2>/dev/null || sleep 1; }

l_lock() {
    command -v flock >/dev/null ||
        l_stop 'the device has no flock, which a lease needs: install util-linux or busybox'
    [ -d "$l_at" ] || mkdir -m 777 "$l_at" 2>/dev/null
    [ ! -h "$l_at" ] && [ -d "$l_at" ] && [ -r "$l_at" ] &&
        [ -w "$l_at" ] ||
        l_stop "the folder of the lease cannot be used: $l_at"
    exec 9<"$l_at"
    l_tries=0
    until flock -n 9; do
        l_tries=$((l_tries + 1))
        [ "$l_tries" -lt 150 ] || l_stop 'the lock of the lease does not come free'
        l_nap
    done
}

l_load() {
    l_token='' l_counter=0 l_of='' l_expires=0 l_since=0
    l_ttl=0 l_owner='' l_work=''
    read -r l_boot </proc/sys/kernel/random/boot_id
    read -r l_up l_rest </proc/uptime
    l_up=$((${l_up%.*} * 100 + 1${l_up#*.} - 100))
    [ -f "$l_at/state" ] && [ ! -h "$l_at/state" ] || return 0
    {
        read -r l_token
        read -r l_counter
        read -r l_of
        read -r l_expires
        read -r l_since
        read -r l_ttl
        IFS= read -r l_owner
        IFS= read -r l_work
    } <"$l_at/state"
    for l_each in "$l_counter" "$l_expires" "$l_since" "$l_ttl"; do
        case $l_each in '' | *[!0-9]*) l_token='' l_counter=0 ;; esac
    done
    [ "$l_of" = "$l_boot" ] || l_token=''
}

l_held() { [ -n "$l_token" ] && [ "$l_up" -lt "$l_expires" ]; }

l_save() {
    l_new=$l_at/.state.$$
    rm -f -- "$l_new"
    (umask 022 && set -C && printf '%s\n' "$@" >"$l_new") 2>/dev/null &&
        mv -f -- "$l_new" "$l_at/state" 2>/dev/null && return
    rm -f -- "$l_new"
    return 1
}

l_stat() {
    l_line=''
    { read -r l_line <"/proc/$1/stat"; } 2>/dev/null
    set -- ${l_line##*) }
    [ $# -ge 20 ] || return 1
    l_state=$1 l_parent=$2 l_group=$3
    shift 19
    l_start=$1
}
"""

_FENCE = r"""
l_fence() {
    l_lock
    l_load
    if [ "$l_token" != "$1" ]; then
        [ -n "$l_token" ] && l_stop "the lease passed on to $l_owner"
        l_stop 'the lease was ended by somebody else, or by a restart of the device'
    fi
    l_stat $$
    l_run=$l_at/run.$$.$l_start
    (umask 022 && set -C && echo "$l_boot $$ $l_start" >"$l_run") 2>/dev/null ||
        l_stop "the folder of the lease cannot be written: $l_at"
    trap 'rm -f -- "$l_run"' EXIT
    exec 9<&-
}
"""

# Processes are stopped before they are killed, parents first: so none starts another one meanwhile,
# and none reports that its child was killed, which would look like a fault of the program.
_CLEAR = r"""
l_uid() { set -- $(ls -dn -- "$1" 2>/dev/null); echo "${3-}"; }

l_runs() { l_stat "$1" && [ "$l_start" = "$2" ] && [ "$l_state" != Z ]; }

l_end() {
    kill -STOP "$1" 2>/dev/null
    l_tree=" $1 " l_more=1
    while [ -n "$l_more" ]; do
        l_more=''
        for l_each in /proc/[0-9]*; do
            l_each=${l_each#/proc/}
            case $l_tree in *" $l_each "*) continue ;; esac
            l_stat "$l_each" || continue
            case $l_tree in *" $l_parent "*) ;; *) continue ;; esac
            kill -STOP "$l_each" 2>/dev/null
            l_tree="$l_tree$l_each " l_more=1
        done
    done
    for l_each in $l_tree; do
        l_stat "$l_each" || continue
        [ "$l_group" != "$l_each" ] || kill -KILL "-$l_each" 2>/dev/null
        kill -KILL "$l_each" 2>/dev/null
    done
}

l_clear() {
    l_alive=''
    for l_file in "$l_at"/run.*; do
        [ -f "$l_file" ] && [ ! -h "$l_file" ] || continue
        l_in='' l_pid='' l_began=''
        { read -r l_in l_pid l_began <"$l_file"; } 2>/dev/null
        case $l_pid$l_began in '' | *[!0-9]*) l_in='' ;; esac
        if [ "$l_in" = "$l_boot" ] && l_runs "$l_pid" "$l_began" &&
            [ "$(l_uid "$l_file")" = "$(l_uid "/proc/$l_pid")" ]; then
            l_end "$l_pid"
            l_tries=0
            while l_runs "$l_pid" "$l_began" && [ "$l_tries" -lt 20 ]; do
                l_tries=$((l_tries + 1))
                l_nap
            done
            if l_runs "$l_pid" "$l_began"; then
                l_alive="$l_alive $l_pid"
                continue
            fi
        fi
        rm -f -- "$l_file"
    done
}

l_sweep() {
    case ${1##*/} in slipway.??????) ;; *) return 0 ;; esac
    [ "$1" != "$2" ] && [ -d "$1" ] && [ ! -h "$1" ] && [ -O "$1" ] || return 0
    rm -rf -- "$1" 2>/dev/null
}
"""

_TELL = r"""
l_tell() {
    printf '%s\n' "$1" "$((l_expires - l_up))" "$((l_up - l_since))" \
        "$l_ttl" "$l_token" "$l_owner"
}
"""

# Arguments: random part of the token, time to live in hundredths of a second, owner, work folder.
TAKE = _short(rf"""{_COMMON}{_CLEAR}{_TELL}
l_lock
l_load
if l_held; then
    l_tell held
    exit
fi
l_clear
if [ -n "$l_alive" ]; then
    printf '%s\n' busy "$l_alive" "$l_owner"
    exit
fi
l_sweep "$l_work" "$4"
l_counter=$((l_counter + 1))
l_save "$l_counter-$1" "$l_counter" "$l_boot" "$((l_up + $2))" \
    "$l_up" "$2" "$3" "$4" || l_stop "the lease cannot be written: $l_at"
printf '%s\n' taken "$l_counter-$1"
""")

# Argument: the token. A lease that is late may be renewed while nobody else has taken it.
RENEW = _short(rf"""{_COMMON}{_TELL}
l_lock
l_load
if [ "$l_token" != "$1" ]; then
    l_tell gone
    exit
fi
l_save "$l_token" "$l_counter" "$l_boot" "$((l_up + l_ttl))" \
    "$l_since" "$l_ttl" "$l_owner" "$l_work" ||
    l_stop "the lease cannot be written: $l_at"
echo renewed
""")

_FREE = r"""
l_free() {
    l_clear
    l_save '' "$l_counter" "$l_boot" 0 0 0 '' '' || rm -f -- "$l_at/state"
    [ -z "$l_alive" ] || l_stop "this account may not end the processes$l_alive"
}
"""

# Argument: the token, or nothing for whoever holds the lease.
RELEASE = _short(rf"""{_COMMON}{_CLEAR}{_TELL}{_FREE}
l_lock
l_load
if [ -n "$1" ] && [ "$l_token" != "$1" ]; then
    l_tell gone
    exit
fi
l_free
echo released
""")

STATUS = _short(rf"""{_COMMON}{_TELL}
l_load
if l_held; then l_tell held; fi
exit 0
""")

# Argument: our own work folder, which stays. What runs in another one of this account ends, whoever
# started it; what a client was sending goes too: it would be resumed from there.
RESET = _short(rf"""{_COMMON}{_CLEAR}{_TELL}{_FREE}
l_lock
l_load
l_free
l_mine=" $$ $PPID "
for l_folder in "${{TMPDIR:-/tmp}}"/slipway.??????; do
    [ -d "$l_folder" ] && [ ! -h "$l_folder" ] && [ -O "$l_folder" ] || continue
    [ "$l_folder" != "$1" ] || continue
    for l_cwd in /proc/[0-9]*/cwd; do
        l_pid=${{l_cwd%/cwd}} l_pid=${{l_pid#/proc/}}
        case $(readlink "$l_cwd" 2>/dev/null)/ in "$l_folder"/*) ;; *) continue ;; esac
        case $l_mine in *" $l_pid "*) continue ;; esac
        l_stat "$l_pid" || continue
        l_end "$l_pid"
        echo "ended $l_pid"
    done
    rm -rf -- "$l_folder" && echo "removed $l_folder"
done
({scripts.ROOT}
find_root
for l_each in "$root"/clients/*/partial/*; do
    [ -f "$l_each" ] && rm -f -- "$l_each" && echo "removed $l_each"
done)
exit 0
""")


def fence(token: str) -> str:
    """What lets a script through while the lease with this token is the device's."""
    return _short(f"{_COMMON}{_FENCE}{shlex.join(['l_fence', token])}")
