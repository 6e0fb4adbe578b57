"""How good a model's pictures are: words read, colours named, emoji recognised, edits done.

suites.py   what is asked, and what would be right      cvtg.py      the same, from the files of CVTG-2K
case.py     one question as a value                     judge.py     a picture held against a question
painters.py who paints: a model folder …                endpoint.py  … or a server
kept.py     pictures that are painted already           measures.py  many judgements as numbers, ceiling and floor
recover.py  what autoencoder and tokens keep, speed     page.py      the record as HTML       verb.py  the whole
"""
