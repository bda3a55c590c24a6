"""Numbers from papers, as data with their protocol; one file per paper."""
