//! Pure judgement: snapshot in, findings out. No clock, no I/O.
