"""What the model may ask us to do during a call."""
