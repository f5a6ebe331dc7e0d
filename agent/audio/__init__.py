"""Frames of 8 kHz PCM, the Opus codec that carries them, and what can be measured on them."""
