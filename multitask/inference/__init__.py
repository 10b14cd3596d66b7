"""Running a trained model: predictions for texts and corpora, and the files they are written to."""
