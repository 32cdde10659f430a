#!/bin/sh
# What mpirun calls in place of ssh: agent.sh ADDRESS COMMAND. The address 10.77.0.N is the network namespace scaleN; a host name of
# its own keeps Open MPI from taking memory for a network.
address=$1
shift
name=scale${address##*.}
exec ip netns exec "$name" unshare --uts sh -c "hostname $name; exec sh -c \"\$0\"" "$*"
