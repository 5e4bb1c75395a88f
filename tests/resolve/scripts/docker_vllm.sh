docker run -d --gpus '"device=0,1"' --shm-size 16g --ipc=host -v /data/models:/models -p 8000:8000 \
  -e VLLM_LOGGING_LEVEL=WARNING --name vllm --restart always vllm/vllm-openai:v0.8.5 \
  --model /models/QwQ-32B --served-model-name qwq --tensor-parallel-size 2 --max-model-len 32768 \
  --enable-reasoning --reasoning-parser deepseek_r1
