"""What a run learns, decided before it starts: heads, labels, class weights, the score of an epoch."""
