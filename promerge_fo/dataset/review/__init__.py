"""Review: people accept or reject masks, starting with the most doubtful ones."""
