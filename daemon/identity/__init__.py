"""Who may do what: keys, tokens, device secrets, and who is disabled."""
