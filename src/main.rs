//! The `taskprof` program: parse, run, exit code.

fn main() -> std::process::ExitCode {
    taskprof::cli::run(std::env::args_os()).into()
}
