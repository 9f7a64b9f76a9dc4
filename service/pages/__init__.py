"""The web page: server-rendered, with its style and scripts from this service alone."""
