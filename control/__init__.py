"""The HTTP control plane: token exchange, list, status, download, delete, cleanup, health and metrics.

`ports` declares all that it needs; `app.make_app` puts the rooms together and `listener.serve` listens.
"""
