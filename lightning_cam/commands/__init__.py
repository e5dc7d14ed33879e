"""The three commands, train, explain and check: how they start and where their settings lie."""
