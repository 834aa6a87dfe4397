//! `taskprof index`: a program's layouts into a small file.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::args::IndexArgs;
use super::style::{faint, say, strong};
use super::{Failure, Outcome};
use crate::debuginfo::layout::{self, Detail, Layouts as _, Source};

/// Reads, writes, and says what came of it.
pub fn run(args: &IndexArgs) -> Outcome {
    let output = args.output.clone().unwrap_or_else(|| {
        let mut name = args.program.clone().into_os_string();
        name.push(".taskprof");
        name.into()
    });
    let progress = spinner();
    progress.set_message(format!("reading the debug information of {}", args.program.display()));
    let mut source = layout::source(&args.program, args.debug_file.as_deref())?;
    refuse(&args.program, &source)?;
    progress.set_message("collecting the types of its tasks");
    let (bytes, written) = layout::write(&mut source.layouts, &source.key)?;
    progress.set_message(format!("writing {}", output.display()));
    write(&output, &bytes)?;
    progress.finish_and_clear();

    say(format!(
        "{}: {} task types, {} futures, {} types",
        strong(output.display()),
        written.tasks,
        written.futures,
        written.types
    ));
    let percent = bytes.len() as f64 * 100.0 / source.bytes.max(1) as f64;
    say(faint(format!(
        "{} KiB, {percent:.1} % of the debug information in {}; build id {}",
        bytes.len().div_ceil(1024),
        source.path.display(),
        source.key
    )));
    if source.layouts.detail() < Detail::Full {
        say(format!(
            "the debug information has no types: dumps will name tasks and say no more; build \
             with `debug = 2` for {}",
            strong("where they wait")
        ));
    }
    if let Some(remark) = source.layouts.remark() {
        say(remark);
    }
    Ok(())
}

/// A program of which there is nothing to save.
fn refuse(program: &Path, source: &Source) -> Outcome {
    if source.layouts.detail() > Detail::Nothing {
        return Ok(());
    }
    let name = program.display();
    Err(Failure::failed(match source.layouts.remark() {
        Some(remark) => format!("{name}: {remark}"),
        None if source.layouts.has_types() => format!(
            "{name} has debug information but no tokio task in it: not a tokio program, or tokio \
             was built without debug information"
        ),
        None => format!(
            "{name} has no debug information: build it with `debug = 2` (or \"full\") in its \
             profile, or name its .debug or .dwp file with --debug-file"
        ),
    }))
}

/// Writes beside the file and renames: a reader never sees half of it.
fn write(output: &Path, bytes: &[u8]) -> Outcome {
    let cannot = |error: std::io::Error| {
        Failure::failed(format!("cannot write {}: {error}", output.display()))
    };
    if output.is_dir() {
        return Err(Failure::usage(format!("{} is a folder, not a file", output.display())));
    }
    if output.exists() && !output.is_file() {
        // A pipe or a device is written to, not replaced.
        return std::fs::write(output, bytes).map_err(cannot);
    }
    let mut beside = output.as_os_str().to_owned();
    beside.push(format!(".{}.part", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = std::fs::File::create(&beside)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&beside, output));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&beside);
        cannot(error)
    })
}

/// Seen on a terminal only, and gone at the end.
fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {msg} {elapsed}");
    let bar = ProgressBar::new_spinner();
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
