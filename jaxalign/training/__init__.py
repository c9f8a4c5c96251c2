"""Tuning: instruction data to batches, arms of the ablation, and the training step."""
