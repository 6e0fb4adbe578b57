"""What training samples and pictures cost, operator by operator."""
