"""The verbs of the command line: one thin function each. Heavy imports happen inside them, so ``--help`` is quick."""
