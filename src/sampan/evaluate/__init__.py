"""How good a model's pictures are: words read, colours named, emoji recognised, edits done.

suites.py        what is asked, and what would be right      cvtg.py      the same, from the files of CVTG-2K
case.py          one question as a value                     scorer.py    a picture held against a question
generators.py    a model folder that paints …                endpoint.py  … or a server
result_cache.py  pictures that are painted already           measures.py  many scores as numbers
recover.py       what autoencoder and tokens keep            page.py      the record as HTML
arguments.py     the options                                 verb.py      the whole

On disk and in tables the upper bound is called `ceiling`, what chance gives `floor`, and the slices of a suite `strata`.
"""
