"""Screening: which dated rules of export and procurement bear on a question. Rules are files; knows nothing of plans."""
