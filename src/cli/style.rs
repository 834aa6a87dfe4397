//! Text on the terminal: colours only where they are wanted, and no panic when
//! the reader of a pipe has gone.

use std::fmt::Display;
use std::io::{IsTerminal as _, Write as _, stdout};

/// Prints a line to stdout.
pub fn say(line: impl Display) {
    // `println!` would panic in `taskprof load --scenario list | head -1`.
    let _ = writeln!(stdout(), "{line}");
}

/// Whether colours are wanted where a terminal is: no `NO_COLOR` (no-color.org).
pub fn wanted() -> bool {
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !no_color && !dumb
}

fn colours() -> bool {
    stdout().is_terminal() && wanted()
}

/// Emphasis for what is to be typed or opened.
pub fn strong(text: impl Display) -> String {
    if colours() { format!("\x1b[1m{text}\x1b[0m") } else { text.to_string() }
}

/// For what may be skipped.
pub fn faint(text: impl Display) -> String {
    if colours() { format!("\x1b[2m{text}\x1b[0m") } else { text.to_string() }
}
