#!/bin/busybox sh
# The first process of the virtual machine. It mounts the host's files, read-only, makes the network and runs the parts
# of the job in them, one after the other; then the machine is switched off. What stands on descriptor 3 reaches xtask.
b=/bin/busybox
now() { read -r up _ < /proc/uptime; echo "ssi-vm: $1 at $up s" > /dev/console; }

$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
while read -r module; do
    $b insmod "/modules/$module" || now "no module $module"
done < /modules/order

$b mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose host /host || { now "no host"; $b poweroff -f; }
# What is needed of the host's /tmp or /run would vanish below the new ones.
n=0
while read -r path; do
    $b mkdir -p "/kept/$n"
    $b mount -o bind "/host$path" "/kept/$n"
    n=$((n + 1))
done < /job/kept
for dir in tmp var/tmp run; do
    $b mount -t tmpfs -o mode=1777 tmpfs "/host/$dir"
done
$b mount -t proc proc /host/proc
$b mount -t sysfs sys /host/sys
$b mount -t devtmpfs dev /host/dev
$b mkdir -p /dev/pts /dev/shm
$b mount -t devpts devpts /host/dev/pts
$b mount -t tmpfs tmpfs /host/dev/shm
n=0
while read -r path; do
    $b test -d "/host$path" || { $b mkdir -p "/host$path"; $b mount -o bind "/kept/$n" "/host$path"; }
    n=$((n + 1))
done < /job/kept
now "the host's files are there"

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp TMPDIR=/tmp SSI_VERBS_VM=1
read -r SSI_VERBS_NODES < /job/nodes
export SSI_VERBS_NODES
for switch in accept_local:1 rp_filter:0 arp_ignore:1; do
    for scope in all default; do echo "${switch#*:}" > "/proc/sys/net/ipv4/conf/$scope/${switch%:*}"; done
done
for port in /sys/class/virtio-ports/vport*; do :; done
exec 3> "/dev/${port##*/}"
# By the host's shell: busybox would take its own `ip`.
in_host() { $b chroot /host /bin/sh -c "$1"; }
if ! { in_host "ip -batch -" < /job/network && in_host "rdma -b -" < /job/devices; } >&3 2>&3; then
    $b poweroff -f
fi
now "the network is there"

while read -r part limit; do
    echo "ssi-vm: begin $part" >&3
    $b setsid $b timeout -s KILL "$limit" $b chroot /host /bin/sh -c "$($b cat "/job/part$part")" >&3 2>&3 < /dev/null 3>&-
    code=$?
    kill -9 -1
    echo >&3
    echo "ssi-vm: end $part $code" >&3
done < /job/parts
now "the parts are done"
$b poweroff -f
