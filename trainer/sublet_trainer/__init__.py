"""Supervised LoRA fine-tuning under a lease. The only package in which torch may be imported."""
