"""What is read of the tokens of an image."""

# The token of its own before those of the patches; the mean of all tokens, that one and registers
# included; and the mean of those of the patches alone.
POOLINGS = ("cls", "mean", "patches")
