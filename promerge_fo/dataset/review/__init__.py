"""Review: masks accepted and rejected by people, the most doubtful first."""
