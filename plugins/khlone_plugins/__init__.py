"""The plugins that come with khlone, through the same entry points as anyone's.

They import khlone's public API only: hookspecs, model, errors, files, process.
"""
