export ASCEND_RT_VISIBLE_DEVICES=0,1
vllm serve /models/Qwen3-8B --tensor-parallel-size 2 --port 8005 --max-model-len 4096
