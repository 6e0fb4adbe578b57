"""What this project's own models cost, counted by running them on shapes: parts, stages of training, making pictures."""
