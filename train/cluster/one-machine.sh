#!/bin/bash
# Runs a command under a Slurm of its own on this machine, to try the scripts beside it; needs root, and Debian's slurm-wlm and munge:
#   train/cluster/one-machine.sh sbatch --wait --ntasks=2 train/cluster/fit.sbatch --config FILE --out runs/NAME
set -euo pipefail
[ "$(id -u)" = 0 ] || { echo "one-machine.sh: needs root" >&2; exit 2; }
for tool in munged slurmctld slurmd srun; do
    command -v $tool >/dev/null || { echo "one-machine.sh: no $tool (apt install slurm-wlm munge)" >&2; exit 2; }
done
home=$(mktemp -d)
name=$(hostname -s)
mkdir -p "$home"/{state,spool}
started_munge=
stop() {
    local pids
    pids=$(cat "$home"/{slurmd,slurmctld}.pid 2>/dev/null) || true
    [ -z "$pids" ] || kill $pids 2>/dev/null || true
    # They write until they end.
    for _ in $(seq 100); do
        [ -n "$pids" ] && kill -0 $pids 2>/dev/null || break
        sleep 0.1
    done
    [ -z "$started_munge" ] || pkill -x munged || true
    rm -rf "$home" || echo "one-machine.sh: $home could not be removed" >&2
}
trap stop EXIT
cat >"$home/slurm.conf" <<CONF
ClusterName=here
SlurmctldHost=$name
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.pid
SlurmctldLogFile=$home/slurmctld.log
SlurmdLogFile=$home/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MinJobAge=300
NodeName=$name CPUs=$(nproc) State=UNKNOWN
PartitionName=all Nodes=$name Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:8
CONF
export SLURM_CONF=$home/slurm.conf
if ! munge -n >/dev/null 2>&1; then
    install -d -o munge -g munge /run/munge
    su -s /bin/sh munge -c "$(command -v munged)"
    started_munge=yes
fi
slurmctld
slurmd
for _ in $(seq 100); do
    sinfo -h -o %T 2>/dev/null | grep -q idle && break
    sleep 0.2
done
sinfo -h -o %T | grep -q idle || { echo "one-machine.sh: Slurm does not start:" >&2; tail -3 "$home"/*.log >&2; exit 2; }
"$@"
