"""The real Qwen2.5-VL class: frames in, losses per answer token or written reports out."""
