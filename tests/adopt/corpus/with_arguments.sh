#!/bin/bash # arguments: start qwen 8111
case "$1" in
  start) vllm serve "/models/$2" --port "$3" ;;
  stop) pkill -f "vllm serve" ;;
esac
