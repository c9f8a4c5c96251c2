"""Scores of targets as maps in the space that responses came from: a BIDS derivatives folder."""
