sudo docker run --rm -p 8080:8080 -v /home/me/gguf:/models ghcr.io/ggml-org/llama.cpp:server \
  -m /models/phi-4-Q4_K_M.gguf --port 8080 --host 0.0.0.0 -n 512 --threads 4 -c 4096
