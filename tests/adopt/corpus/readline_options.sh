#!/bin/bash
while [[ $# -gt 0 ]]; do
  case $1 in
    --port) PORT="$2"; shift 2 ;;
    *) shift ;;
  esac
done
while getopts "p:m:" opt; do case $opt in p) PORT=$OPTARG;; m) MODEL=$OPTARG;; esac; done
vllm serve ${MODEL:-/m/base} --port ${PORT:-8765}
