#!/bin/bash
usage() { echo "usage: $0 [model]"; exit 1; }
[ "$1" = "-h" ] && usage
MODEL=${1:-/m/default}
if [ "$#" -gt 1 ]; then usage; fi
vllm serve "$MODEL"
exit 0
vllm serve /m/never
