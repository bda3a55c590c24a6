"""`python -m ipsrec_bench` is `ipsrec-bench`."""

from ipsrec_bench.cli.main import main

if __name__ == "__main__":
    main()
