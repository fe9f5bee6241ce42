# An NFS server over a mount and a client of it, in namespaces of their own: nobody else's ports,
# sockets or files, and all ends with this shell.
#
#   nfs.sh DRIVE PORTION OUT SCRATCH
#
# Copies every file of PORTION into DRIVE and every file of DRIVE into OUT, by NFS alone: the
# directories are made beforehand. What the server says is in SCRATCH/log.
set -euo pipefail
drive=$1 portion=$2 out=$3 scratch=$4

mount -t tmpfs none /run
mount -t tmpfs none /var/lib/nfs
mkdir /run/rpcbind /run/ganesha
ip link set lo up
rpcbind
cat >"$scratch/conf" <<END
NFS_CORE_PARAM { Protocols = 3, 4; Mount_Path_Pseudo = true; Enable_NLM = false; Enable_RQUOTA = false; }
NFSv4 { RecoveryRoot = /run/ganesha; Graceless = true; }
EXPORT { Export_Id = 7; Path = $drive; Pseudo = /drive; Access_Type = RW; Squash = None; SecType = sys;
    FSAL { Name = VFS; } }
END
ganesha.nfsd -F -f "$scratch/conf" -L "$scratch/log" -p /run/ganesha.pid -N NIV_EVENT &

at=nfs://127.0.0.1/drive
for _ in $(seq 100); do
    nfs-ls "$at/?version=3" >"$scratch/first" 2>"$scratch/error" && break
    sleep 0.2
done
nfs-ls "$at/?version=3" >"$scratch/first"

(cd "$portion" && find . -type f -printf '%P\n') | while read -r file; do
    nfs-cp "$portion/$file" "$at/$file?version=3" >"$scratch/copied"
done
nfs-ls -R "$at/?version=3" >"$scratch/listing"
nfs-ls -R "$at/?version=4" >"$scratch/listing-4"
(cd "$drive" && find . -type f -printf '%P\n') | while read -r file; do
    nfs-cat "$at/$file?version=3" >"$out/$file"
done
