"""Everything between settings and a trained model: preparation, the trainer, run folders and checkpoints."""
