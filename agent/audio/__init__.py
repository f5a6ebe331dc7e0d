"""Frames of 8 kHz PCM, the codecs that carry them, and what can be measured on them."""
