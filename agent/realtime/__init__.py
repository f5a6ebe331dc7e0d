"""The Realtime leg: one session over WebRTC, its audio and its events."""
