#!/bin/bash
vllm serve /m > out.log 2> err.log --port 8000 --seed 3 &
wait
