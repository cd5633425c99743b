"""Qwen3.5: prompt and tower of Qwen3-VL; three of four decoder layers are recurrent.

The recurrent layers are gated DeltaNets with a state of fixed size; see `recurrent`. Every fourth
layer is attention with an output gate, and applies rotary embedding to a quarter of each head.
"""

from dataclasses import replace

from transformers import Qwen3_5ForConditionalGeneration

from ctscribe.learn.model.qwen3_vl import QWEN3_VL

QWEN3_5 = replace(
    QWEN3_VL,
    title="Qwen3.5",
    model_type="qwen3_5",
    model=Qwen3_5ForConditionalGeneration,
    rope={"rope_theta": 1e7, "mrope_interleaved": True, "partial_rotary_factor": 0.25},
    # without in_proj_a and in_proj_b: they have one output per head, 32 in the 4B, so an adapter of
    # the usual rank would be larger than the layer
    language_linears=(
        r".*language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj"
        r"|linear_attn\.(in_proj_(qkv|z)|out_proj)|mlp\.(gate|up|down)_proj)"
    ),
    tower_features=lambda output: output.pooler_output,
    mergers=lambda tower: [tower.merger],
    further_inputs=lambda is_video, levels: {},
    older_rope={**QWEN3_VL.older_rope, "partial_rotary_factor": 0.25},
)
