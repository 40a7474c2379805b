"""What the store asks of a device, in words that dash and busybox sh understand.

Whatever changes `files`, `trees` or `slots` holds the lock of the store, for moments: hashing and
sending are done before.

Files and folders are moved into a folder, under the name that they keep: `mv -T`, which would be
needed to move onto a symbolic link to a folder, is unknown to older busyboxes. Either is one
rename. Contents are on the disk before a name is: a power cut must not leave files of zeros.
"""

from __future__ import annotations

# The ids of this command's process and of all above it: see `_CLIENT`.
ABOVE = r"""
above= up=$$
while { read -r line <"/proc/$up/stat"; } 2>/dev/null; do
    line=${line##*) }
    line=${line#* }
    up=${line%% *}
    above="$above $up"
done
"""
# What others may have put in a shared folder is not ours: programs are loaded from there.
ROOT = r"""
umask 077
home=${XDG_CACHE_HOME:-${HOME:+$HOME/.cache}}
own=${SLIPWAY_CACHE:-${home:+$home/slipway}}
ours() { [ -O "$1" ] && { [ "$1" = "$own" ] || [ ! -h "$1" ]; }; }
user=slipway-$(id -u)
find_root() {
    for root in "$own" "/var/tmp/$user" "${TMPDIR:-/tmp}/$user"; do
        [ -n "$root" ] && [ -d "$root/trees" ] && ours "$root" && return
    done
    for root in "$own" "/var/tmp/$user" "${TMPDIR:-/tmp}/$user"; do
        [ -n "$root" ] && mkdir -p -- "$root/trees" 2>/dev/null && ours "$root" && return
    done
    echo "no folder there can be written: neither in the home, nor in /var/tmp, nor in /tmp" >&2
    exit 1
}
"""
_TOOLS = r"""
for tool in flock sha256sum; do
    command -v "$tool" >/dev/null || { echo "there is no command $tool" >&2; exit 1; }
done
"""
LOCK = r"""
lock() { exec 7>>"$root/lock" && flock 7 || exit 1; }
flush() { sync -f "$root" 2>/dev/null || sync; }
"""
# A client lives as long as the process that serves its connection: the nearest one that stands
# above both this command and the one that made the work folder. Its start tells it from a later
# process of the same number.
ALIVE = r"""
read -r boot </proc/sys/kernel/random/boot_id
started() {
    { read -r line <"/proc/$1/stat"; } 2>/dev/null || return
    set -- ${line##*) }
    shift 19
    echo "$1"
}
alive() {
    { read -r pid start booted <"$1/session"; } 2>/dev/null || return
    [ "$booted" = "$boot" ] && [ -n "$start" ] && [ "$(started "$pid")" = "$start" ]
}
"""
_CLIENT = (
    r"""
client=$root/clients/${work##*/}
mkdir -p -- "$root/files" "$root/slots" "$root/states" "$client/partial" "$client/uses" || exit 1
set -- "$above" "$@"
"""
    + ABOVE
    + r"""
for pid in $above; do case " $1 " in *" $pid "*) break ;; esac; pid=; done
shift
[ -z "$pid" ] || echo "$pid $(started "$pid") $boot" >"$client/session"
"""
)
# What dead clients began is ours now; so is what a live one has not added to for two minutes.
_INHERIT = r"""
for other in "$root"/clients/*; do
    [ "$other" != "$client" ] || continue
    if alive "$other"; then
        find "$other/partial" -type f -mmin +2 -exec mv -f -- {} "$client/partial/" \;
    else
        find "$other/partial" -type f -exec mv -f -- {} "$client/partial/" \; 2>/dev/null
        rm -rf -- "$other"
    fi
done
find "$client/partial" -type f -mmin +1440 -exec rm -f -- {} +
chmod -R u+w -- "$client/partial"
"""
# work, ids above it, trees -> what is there. A tree is `hash:DIGEST` if its contents count.
LOOK = (
    ROOT
    + _TOOLS
    + LOCK
    + ALIVE
    + r"""
work=$1 above=$2
shift 2
find_root
lock
"""
    + _CLIENT
    + _INHERIT
    + r"""
for tree; do : >"$client/uses/${tree#*:}"; done
exec 7>&-
printf "@root %s\n" "$root"
for tree; do
    printf "@tree %s\n" "${tree#*:}"
    cd -- "$root/trees/${tree#*:}" 2>/dev/null || continue
    find . ! -type d -exec ls -ln {} +
    case $tree in hash:*) find . -type f -exec sha256sum {} + ;; esac
done
printf "@files\n"; ls -ln "$root/files"
printf "@partial\n"; ls -ln "$client/partial"
printf "@trees\n"; ls "$root/trees"
printf "@store\n"; df -Pk -- "$root" 2>/dev/null | tail -n +2
printf "@work\n"; df -Pk -- "$work" 2>/dev/null | tail -n +2
exit 0
"""
)
# root, client, list, its digest -> digests of what is missing or arrived damaged; then nothing is
# changed. The list was sent to $client/list if it is not given. It has lines of three words:
# check DIGEST PATH (- for what was sent to partial), tree DIGEST -, file DIGEST NAME,
# link TARGET NAME, drop - NAME, show DIGEST FOLDER, at DIGEST PATH.
KEEP = (
    LOCK
    + r"""
umask 077
root=$1 client=$2 list=$2/list bad= sent= changed= made=
is() { got=$(sha256sum <"$2") && [ "${got%% *}" = "$1" ]; }
[ -z "$3" ] || printf "%s" "$3" >"$list"
is "$4" "$list" || { echo "$4"; exit 0; }
while read -r what digest path; do
    [ "$what" = check ] || continue
    [ "$path" != - ] || path=$client/partial/$digest sent=1
    is "$digest" "$path" && continue
    rm -f -- "$path"
    echo "$digest"
    bad=1
done <"$list"
[ -z "$bad" ] || exit 0
[ -z "$sent" ] || { chmod 555 "$client"/partial/*; flush; }
lock
new=$client/new
mend() {  # other trees have what was damaged, too
    [ ! -e "$root/files/$1" ] || set -- "$1" $(ls -i -- "$root/files/$1")
    mv -f -- "$client/partial/$1" "$root/files/" || exit 1
    [ $# -gt 1 ] || return
    find "$root/trees" -type f -inum "$2" 2>/dev/null | while read -r other; do
        rm -f -- "$new" && ln -- "$root/files/$1" "$new" && mv -f -- "$new" "$other"
    done
}
copy() { ln -- "$root/files/$1" "$2" 2>/dev/null || cp -p -- "$root/files/$1" "$2" || exit 1; }
fill() {
    [ -e "$root/files/$1" ] || { echo "$1"; exit 0; }
    [ ! "$to" -ef "$root/files/$1" ] || return
    changed=1
    [ -d "${to%/*}" ] || mkdir -p -- "${to%/*}" || exit 1
    if [ -n "$fresh" ]; then
        copy "$1" "$to"
    else
        rm -rf -- "$new" && copy "$1" "$new"
        [ ! -d "$to" ] || rm -rf -- "$to"
        mv -f -- "$new" "$to" || exit 1
    fi
}
while read -r what digest path; do
    to=$into/$path
    case $what in
    check) [ "$path" != - ] || mend "$digest" ;;
    tree)
        into=$root/trees/$digest fresh=
        [ ! -d "$into" ] || continue
        fresh=1 into=$client/stage/$digest made="$made $digest" changed=1
        rm -rf -- "$root/trees/$digest" "$into"
        mkdir -p -- "$into" || exit 1 ;;
    file) fill "$digest" ;;
    link) rm -rf -- "$to" && ln -s -- "$digest" "$to" || exit 1 ;;
    drop) rm -rf -- "$to"; changed=1 ;;
    esac
done <"$list"
[ -z "$changed" ] || flush
for tree in $made; do mv -f -- "$client/stage/$tree" "$root/trees/" || exit 1; done
[ -z "$made" ] || flush
while read -r what digest path; do
    tree=$root/trees/$digest
    case $what in
    tree) touch -- "$tree" ;;
    at) mkdir -p -- "${path%/*}" && rm -f -- "$path" && ln -s -- "$tree" "$path" || exit 1 ;;
    show)
        mkdir -p -- "$path" || exit 1
        (cd -- "$tree" && set -- * && cd -- "$path" && rm -f -- "$@") || exit 1
        ln -s -- "$tree"/* "$path/" || exit 1 ;;
    esac
done <"$list"
rm -f -- "$list"
exit 0
"""
)
# Folders for files of the work folder, which must not reach into what stays through its links.
# number of folders, folders, files
MAKE_ROOM = r"""
count=$1
shift
for path; do
    if [ "$count" -gt 0 ]; then
        [ ! -h "$path" ] || { echo "$path leads to what stays on the device" >&2; exit 1; }
        mkdir -p -- "$path" || exit 1
    else
        [ ! -h "$path" ] || rm -f -- "$path" || exit 1
    fi
    count=$((count - 1))
done
"""
# work folder, its name among the clients -> it is gone, but for what was sent in part
LEAVE = (
    ROOT
    + r"""
rm -rf -- "$1"
for root in "$own" "/var/tmp/$user" "${TMPDIR:-/tmp}/$user"; do
    client=$root/clients/${1##*/}
    [ -n "$root" ] && [ -d "$client" ] && ours "$root" || continue
    for name in "$client"/*; do [ "$name" = "$client/partial" ] || rm -rf -- "$name"; done
    rmdir -- "$client/partial" "$client" 2>/dev/null
done
exit 0
"""
)
