"""What a run will take, before anyone rents a chip: time, memory, money, energy and carbon, each with how sure it is.

Standard library, the catalogue and configs only: no framework, no NumPy. Efficiencies are fitted offline and are read
from a file.
"""
