"""``python -m chaos.toxiproxy``: see to it that the server program is here, before anything that has to be quick."""

import sys

from chaos.stack import StackError
from chaos.toxiproxy.binary import find_server

if __name__ == "__main__":
    try:
        find_server(tell=lambda words: print(words, flush=True))
    except StackError as problem:
        sys.exit(str(problem))
