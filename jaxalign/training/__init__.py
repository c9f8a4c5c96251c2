"""Tuning: instruction data to tokens and masks, and the arms of the ablation."""
