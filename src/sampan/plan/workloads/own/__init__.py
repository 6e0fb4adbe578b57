"""What this project's own models cost, exactly as their code computes: parts, stages of training, making pictures."""
