"""The search behind `scheme = "auto"`: the cheapest program that holds the accuracy.

plan      what is tried, in which order, and when to stop
choice    which of the tried is taken: the rule, and the Pareto front
trial     one candidate: quantized, lowered, run on this host, measured on the device
kept      results of finished candidates as files, so that a search that was killed goes on
report    what was tried, as JSON, as a table and as a picture
"""
