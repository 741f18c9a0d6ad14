"""The commands an operator gives, and the Unix socket they travel through."""
