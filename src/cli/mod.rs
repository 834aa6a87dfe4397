//! The `taskprof` command line.
//!
//! Errors are one line on stderr that says what to do. Exit codes: 0 done,
//! 1 failed, 2 usage, 130 when a second Ctrl-C cut the shutdown short.

mod advice;
mod args;
mod attach;
mod demo;
mod diff;
mod dump;
mod fetch;
mod index;
mod lab;
mod load;
mod log;
mod serve;
mod signals;
mod style;
mod token;
mod wiring;

use std::ffi::OsString;
use std::fmt;
use std::io::Write as _;

use clap::Parser as _;
use clap::error::ErrorKind as ClapKind;

use crate::error::{Error, ErrorKind};

/// Exit code: done.
pub const DONE: u8 = 0;
/// Exit code: tried and failed.
pub const FAILED: u8 = 1;
/// Exit code: the command line makes no sense.
pub const USAGE: u8 = 2;

/// Why a command did not succeed.
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn failed(message: impl fmt::Display) -> Self {
        Self { code: FAILED, message: message.to_string() }
    }

    fn usage(message: impl fmt::Display) -> Self {
        Self { code: USAGE, message: message.to_string() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = if error.kind() == ErrorKind::InvalidInput { USAGE } else { FAILED };
        Self { code, message: error.to_string() }
    }
}

type Outcome = Result<(), Failure>;

/// Parses the command line, runs it and returns the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match args::Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let outcome = match cli.command {
        args::Command::Demo(args) => demo::run(&args),
        args::Command::Serve(args) => serve::run(&args),
        args::Command::Load(args) => load::run(&args),
        args::Command::Lab(args) => lab::run(&args),
        args::Command::Dump(args) => dump::run(&args),
        args::Command::Diff(args) => diff::run(&args),
        args::Command::Attach(args) => attach::run(&args),
        args::Command::Index(args) => index::run(&args),
    };
    match outcome {
        Ok(()) => DONE,
        Err(Failure { code, message }) => {
            complain(&message);
            code
        }
    }
}

/// One line on stderr; nobody to read it is no reason to fail.
fn complain(message: &str) {
    let line: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let _ = writeln!(std::io::stderr(), "taskprof: {}", line.join(" "));
}

/// What clap has to say: help as it is, errors in one line.
fn refuse(error: &clap::Error) -> u8 {
    match error.kind() {
        ClapKind::DisplayHelp | ClapKind::DisplayVersion => {
            let _ = error.print();
            DONE
        }
        ClapKind::DisplayHelpOnMissingArgumentOrSubcommand | ClapKind::MissingSubcommand => {
            complain("which command? `taskprof --help` lists them; `taskprof demo` shows it all");
            USAGE
        }
        _ => {
            complain(&one_line(&error.render().to_string()));
            USAGE
        }
    }
}

/// clap's first paragraph and its tip, without the usage that follows.
fn one_line(rendered: &str) -> String {
    let mut paragraphs = rendered.split("\n\n").map(|paragraph| {
        paragraph.lines().map(str::trim).collect::<Vec<_>>().join(" ").trim().to_owned()
    });
    let first = paragraphs.next().unwrap_or_default();
    let mut line = first.strip_prefix("error: ").unwrap_or(&first).to_owned();
    if let Some(tip) = paragraphs.find_map(|next| next.strip_prefix("tip: ").map(str::to_owned)) {
        line.push_str("; ");
        line.push_str(&tip);
    }
    line.push_str("; see --help");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claps_errors_fit_on_one_line() {
        let text = "error: unexpected argument '--grcp' found\n\n  \
                    tip: a similar argument exists: '--grpc'\n\nUsage: taskprof serve\n";
        assert_eq!(
            one_line(text),
            "unexpected argument '--grcp' found; a similar argument exists: '--grpc'; see --help"
        );
        let text = "error: required arguments were not provided:\n  --url <URL>\n\nUsage: x\n";
        assert_eq!(one_line(text), "required arguments were not provided: --url <URL>; see --help");
    }
}
