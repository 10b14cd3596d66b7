"""Where an encoder comes from, what is checked before it is used, how a model is saved, and LoRA."""
