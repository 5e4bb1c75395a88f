"""The flags of LMDeploy's OpenAI server, as its pinned version has them.

Written by scripts/argparse_flags.py; do not edit. ``SWITCH`` flags take no value, ``VALUE`` flags one
and ``VALUES`` flags several. ``SHORT`` has the other spellings, ``NEGATIONS`` those that turn a switch
off, and ``CHOICES`` the values of flags that take theirs from a list.
"""

VERSION = "0.18.0"

SWITCH = """
allow_credentials allow_terminate_by_client disable_fastapi_docs disable_metrics eager_mode
empty_init enable_abort_handling enable_eplb enable_microbatch enable_prefix_caching
enable_return_routed_experts help language_model_only ssl trust_remote_code
"""

VALUE = """
async backend cache_block_seq_len cache_max_entry_count chat_template communicator cp device
dist_init_addr distributed_executor_backend dllm_block_length dllm_confidence_threshold
dllm_denoising_steps dllm_unmasking_strategy download_dir dp dtype ep generation_config
hf_overrides kernel_block_size kv_transfer_config log_level logprobs_mode max_batch_size
max_concurrent_requests max_log_len max_prefill_iters max_prefill_token_num migration_backend
model_format model_name moe_a2a_backend nnodes node_rank num_gpu_blocks num_tokens_per_iter
piecewise_cudagraph_max_tokens prefix_cache_decode_state_interval prefix_cache_state_budget
proxy_url quant_policy reasoning_parser revision role rope_scaling_factor server_name server_port
session_len speculative_algorithm speculative_dflash_block_size speculative_draft_model
speculative_num_draft_tokens tool_call_parser tp vision_max_batch_size
"""

VALUES = """
adapters allow_headers allow_methods allow_origins allowed_media_domains api_keys
cudagraph_capture_batch_sizes
"""

SHORT = """
help: h
"""

NEGATIONS = """

"""

CHOICES = """
async: 0 1; backend: pytorch turbomind; communicator: cuda-ipc native nccl; device: ascend camb
cuda maca; distributed_executor_backend: mp ray uni; dllm_unmasking_strategy:
low_confidence_dynamic low_confidence_static sequential; dtype: auto bfloat16 float16; log_level:
CRITICAL DEBUG ERROR FATAL INFO NOTSET REQUEST WARN WARNING; logprobs_mode: raw_logits
raw_logprobs; migration_backend: DLSlime Mooncake; model_format: awq compressed-tensors fp8 gptq
hf mxfp4; moe_a2a_backend: auto deepep default; reasoning_parser: deepseek-r1 deepseek-v3
deepseek-v3.2 deepseek-v32 deepseek-v4 default intern-s1 qwen-qwq; role: Decode Hybrid Prefill;
speculative_algorithm: deepseek_mtp dflash eagle eagle3 hy3_mtp qwen3_5_mtp; tool_call_parser:
deepseek-v32 deepseek-v4 glm47 intern-s1 internlm interns2-preview kimi-k2 kimi_k2 llama3 qwen
qwen2d5 qwen3 qwen3coder
"""
