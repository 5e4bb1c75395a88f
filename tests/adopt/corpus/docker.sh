#!/bin/bash
VERSION=v0.11.0
docker run -d --gpus '"device=0,1"' -v /data/models:/models -p 8000:8000 --ipc=host \
  -e HF_HUB_OFFLINE=1 vllm/vllm-openai:$VERSION --model /models/Qwen3-32B --tensor-parallel-size 2
