//! Stacks read from outside the code that runs: native threads now, await chains next.
