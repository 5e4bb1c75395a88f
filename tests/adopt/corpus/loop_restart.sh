#!/bin/bash
tries=0
while [ $tries -lt 2 ]; do
  vllm serve /m --port 8000 --seed $tries
  tries=$((tries + 1))
  sleep 5
done
until [ $tries -eq 3 ]; do tries=3; done
vllm serve /m --port 8001 --seed $tries
