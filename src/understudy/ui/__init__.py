"""The web page: jobs, their output and numbers, stores, claims and recipes, in a browser.

It listens on this machine only and shows everything that the same user could read in files; what it
changes (cancel, retry) goes through the engines, as the command does.
"""
