#!/bin/bash
declare -a ARGS=(--host 127.0.0.1 --port 9000)
ARGS+=(--max-model-len 4096)
ARGS+=("--rope-scaling" '{"rope_type": "yarn", "factor": 4.0}')
if [ "${LONG:-no}" = yes ]; then
  ARGS+=(--max-model-len 131072)
fi
MODELS=(/m/a /m/b /m/c)
vllm serve "${MODELS[1]}" "${ARGS[@]}" --seed ${#MODELS[@]}
