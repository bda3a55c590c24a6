"""Numbers from papers, as data with their protocol; a file per paper."""
