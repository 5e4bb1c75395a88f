#!/bin/bash
vllm serve /m \
  --port 8000 \
  --dtype auto # the rest is not read: --seed 9

# vllm serve /never
echo "vllm serve /printed only"
