"""Tests of what talks to remotes: local bare repositories, and a fake gh and glab."""
