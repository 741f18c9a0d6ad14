#!/usr/bin/env bash
# A machine of its own: a real systemd as process 1 of new namespaces, on an overlay of / that is thrown away.
#
#   nested.sh STATE_DIR PROJECT_DIR
#
# STATE_DIR is mounted over. PROJECT_DIR is seen, read-only, at /mnt/project inside. Runs until the machine powers off.
# Exit status 77: this kernel, or these rights, cannot do it. The machine's process 1 is the child of this process.
set -euo pipefail
state=$1 project=$2 part=${3:-outside}

if [ "$part" = outside ]; then
    unified=/sys/fs/cgroup/unified
    [ -d "$unified" ] || unified=/sys/fs/cgroup
    group=$unified/uplinkd-nested-$$
    mkdir -p "$state"
    mkdir "$group" && echo 0 >"$group/cgroup.procs" || exit 77
    exec unshare --cgroup --pid --mount --uts --ipc --net --fork --kill-child bash "$0" "$state" "$project" inside
fi

cannot() {
    echo "nested.sh: $1" >&2
    exit 77
}

root=$state/root
mount --make-rprivate / || cannot "mounts cannot be made private"
mount -t tmpfs nested "$state" || cannot "tmpfs cannot be mounted"
mkdir "$state"/{upper,work,root}
mount -t overlay nested -o "lowerdir=/,upperdir=$state/upper,workdir=$state/work" "$root" || cannot "no overlay of /"
mount -t proc proc "$root/proc" || cannot "proc cannot be mounted"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys" || cannot "sysfs cannot be mounted"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup" || cannot "cgroup2 cannot be mounted"
for directory in run tmp dev; do
    mount -t tmpfs -o mode=755 nested "$root/$directory"
done
chmod 1777 "$root/tmp"
mkdir "$root"/dev/{pts,shm}
chmod 1777 "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
while read -r name major minor; do
    mknod -m 666 "$root/dev/$name" c "$major" "$minor" || cannot "devices cannot be made"
done <<<$'null 1 3\nzero 1 5\nfull 1 7\nrandom 1 8\nurandom 1 9\ntty 5 0'

mkdir -p "$root/mnt/project"
mount --bind "$project" "$root/mnt/project"
mount -o remount,bind,ro "$root/mnt/project"

rm -f "$root/etc/machine-id"
tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
# What looks for hardware, a network or a screen finds none here. Whatever this host runs is not started again.
rm -rf "$root"/etc/systemd/system/{multi-user.target,sockets.target,timers.target}.wants
# Nor is a message bus needed: systemctl speaks to process 1 itself, and on a busy host the bus was seen to hang at its
# start.
for unit in systemd-{udevd,timesyncd,networkd,resolved,logind}.service systemd-udevd-{kernel,control}.socket \
    getty.target dbus.{service,socket}; do
    ln -sfn /dev/null "$root/etc/systemd/system/$unit"
done

ip link set lo up
cd "$root"
mkdir -p .outside
pivot_root . .outside
umount -l /.outside
# Of the host's clock, modules and ports, root here must stay away.
exec setpriv --bounding-set -sys_time,-sys_module,-sys_rawio --inh-caps -sys_time,-sys_module,-sys_rawio \
    env -i container=nested PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --unit=multi-user.target --show-status=false
