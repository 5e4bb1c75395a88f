docker run -it --gpus all -p 8000:8000 -v /mnt/workspace:/mnt/workspace --name ms \
  modelscope-registry.cn-hangzhou.cr.aliyuncs.com/modelscope-repo/modelscope:ubuntu22.04-cuda12.1.0-py310-torch2.3.0-1.18.0 \
  bash -c "cd /mnt/workspace && python -m vllm.entrypoints.openai.api_server --model /mnt/workspace/Qwen2-7B --port 8000 --max-model-len 4096"
