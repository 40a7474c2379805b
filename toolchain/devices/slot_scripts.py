"""What `deploy` asks of a device, in words that dash and busybox sh understand (see `scripts`).

A slot is a link to a folder in `states` with the links `current` and `previous`: one rename of it
changes both. A state that was left stays for a day, since somebody may just be passing through it.
"""

from __future__ import annotations

from toolchain.devices import scripts

# root, client, slot, tree, the tree that has to be current (if not empty)
SWITCH = (
    scripts.LOCK
    + r"""
umask 077
root=$1 client=$2 slot=$3 want=../../trees/$4
lock
now=$(readlink "$root/slots/$slot/current")
[ "$now" != "$want" ] || exit 0
if [ -n "$5" ] && [ "$now" != "../../trees/$5" ]; then
    echo "another client changed the slot meanwhile" >&2
    exit 1
fi
[ -d "$root/trees/$4" ] || { echo "the tree $4 is not there" >&2; exit 1; }
state=$(mktemp -d "$root/states/$slot.XXXXXX") && ln -s "$want" "$state/current" || exit 1
[ -z "$now" ] || ln -s "$now" "$state/previous" || exit 1
rm -rf -- "$client/stage" && mkdir -p -- "$client/stage" || exit 1
ln -s "../states/${state##*/}" "$client/stage/$slot" && touch -- "$root/trees/$4" || exit 1
flush
mv -f -- "$client/stage/$slot" "$root/slots/" || exit 1
flush
"""
)
# root -> each slot, the trees it is linked to, and what is in the current one
SLOTS = r"""
for slot in "$1"/slots/*; do
    [ -h "$slot/current" ] || continue
    printf "@slot %s\n" "${slot##*/}"
    readlink "$slot/current"
    readlink "$slot/previous" || echo
    cat "$slot/current/manifest.json"
    echo  # a damaged one may end anywhere
done
exit 0
"""
# root, tree -> inodes of all files that stay, inodes and digests of those of the tree, its links
SUMS = r"""
cd -- "$1/files" && find . -type f -exec ls -lin {} +
printf "@tree\n"
cd -- "$1/trees/$2" || exit 1
find . ! -type d -exec ls -lin {} +
find . -type f -exec sha256sum {} +
exit 0
"""
# Trees of slots, of clients that live, and of processes. Only root sees those of other users; but
# what is removed under a process stays on the disk until it ends.
_USED = r"""
here=$(cd -- "$root" && pwd -P)
used=" $(
    {
        for link in "$root"/slots/*/current "$root"/slots/*/previous; do readlink "$link"; done
        for client in "$root"/clients/*; do
            if alive "$client"; then ls "$client/uses"; fi
        done
        {
            cat /proc/[0-9]*/maps
            ls -l /proc/[0-9]*/exe /proc/[0-9]*/cwd /proc/[0-9]*/fd
        } 2>/dev/null | grep -F "$here/trees/" | sed "s|.*/trees/||; s|/.*||; s| .*||"
    } | sed "s|.*/||" | sort -u | tr "\n" " "
) "
"""
# root -> inode, bytes of each file of each tree, and its links, trees in the order of their last
# use; and those that are used now
WEIGH = (
    scripts.ALIVE
    + r"""
root=$1
for tree in $(ls -tr "$root/trees"); do
    printf "@tree %s\n" "$tree"
    (cd -- "$root/trees/$tree" && find . ! -type d -exec ls -lin {} +)
done
"""
    + _USED
    + r"""
printf "@used\n"
printf "%s\n" $used
"""
)
# root, trees that may go, before what they show -> those that went
PRUNE = (
    scripts.LOCK
    + scripts.ALIVE
    + r"""
root=$1
shift
lock
"""
    + _USED
    + r"""
shown() {
    for link in "$root"/trees/*/*; do
        [ ! -h "$link" ] || [ "$(readlink "$link")" != "../$1" ] || return 0
    done
    return 1
}
rm -rf -- "$root/gone" && mkdir -- "$root/gone" || exit 1
for tree; do
    case $used in *" $tree "*) continue ;; esac
    shown "$tree" || { mv -f -- "$root/trees/$tree" "$root/gone/" && echo "$tree"; }
done
rm -rf -- "$root/gone"
ls -ln "$root/files" | while read -r mode links user group size month day time name; do
    [ "$links" != 1 ] || rm -f -- "$root/files/$name"
done
live=" $(for slot in "$root"/slots/*; do readlink "$slot"; done | tr "\n" " ") "
for state in "$root"/states/*; do
    case $live in *" ../states/${state##*/} "*) continue ;; esac
    find "$state" -prune -type d -mmin +1440 -exec rm -rf -- {} \;
done
exit 0
"""
)
