#!/bin/bash
export HF_HUB_OFFLINE=1
vllm serve /m --port 8000 2>&1 | tee -a serve.log
echo start && vllm serve /n --port 8001 && echo done
false || vllm serve /o --port 8002
true || vllm serve /never
! false && vllm serve /p
