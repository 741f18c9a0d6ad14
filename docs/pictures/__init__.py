"""Pictures for README.md and docs/, drawn from a description of who says what to whom."""
