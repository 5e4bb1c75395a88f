#!/bin/bash
HERE="$(cd "$(dirname "${BASH_SOURCE[0]:-$0}")" && pwd)"
NAME=$(basename /data/models/Qwen3-4B/)
NICE=$(echo "$NAME-chat")
vllm serve /data/models/$NAME --served-model-name $NICE --port 8000
