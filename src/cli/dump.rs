//! `taskprof dump`: one dump of a server, a process or a core, to stdout or a file.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Deref;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;

use super::args::{DumpArgs, Format};
use super::{Failure, Outcome, fetch};
use crate::analyze::{Judge, analyze};
use crate::attach::Target;
use crate::model::{Coverage, Finding, Process, Report, Snapshot, human_duration};
use crate::render::json::{self, FindingsAnswer, Head};
use crate::render::{Chunks, html, pprof, text};
use crate::serve::{Source as _, Want};

/// Takes or fetches it, and writes it.
pub fn run(args: &DumpArgs) -> Outcome {
    let output = args.output.as_deref();
    if let Some(url) = &args.url {
        if args.debug.any() {
            return Err(Failure::usage(
                "--debug-file, --layout and --debug-folder are for --pid and --core; a server \
                 finds its own",
            ));
        }
        let token_file = args.token_file.as_deref();
        let found = match args.format {
            Format::Text => Some(Found::by(url, token_file)?),
            _ => None,
        };
        let mut body = fetch::open(url, args.format, token_file)?;
        return write(output, |out| {
            found.map_or(Ok(()), |found| found.write(out, 0))?;
            io::copy(&mut body, out).map(drop)
        });
    }
    let options = args.debug.options()?;
    let target = match (args.pid, &args.core, &args.exe) {
        (Some(pid), ..) => Target::process(pid, &options, args.copy.limits())?,
        (None, Some(core), Some(exe)) => Target::core(core, exe, &options)?,
        _ => return Err(Failure::usage("expected --url, --pid, or --core with --exe")),
    };
    let snapshot = target.snapshot(Want::ALL)?;
    let report = analyze(&snapshot);
    let frozen_ns = target.frozen_ns();
    write(output, |out| render(out, args.format, snapshot, report, frozen_ns))
}

fn render(
    out: &mut dyn Write,
    format: Format,
    snapshot: Snapshot,
    report: Report,
    frozen_ns: u64,
) -> io::Result<()> {
    match format {
        Format::Text => {
            Found::of(&snapshot, report).write(out, frozen_ns)?;
            let stuck = Judge::new(&snapshot).stuck();
            pieces(
                out,
                text::Debug2::new(Arc::new(Owned(snapshot))).stuck(stuck).without_coverage(),
            )
        }
        Format::Json => {
            pieces(out, json::snapshot(Arc::new(Owned(snapshot))))?;
            out.write_all(b"\n")
        }
        Format::Pprof => out.write_all(&pprof::goroutine(pprof::Tasks::Live, &snapshot)),
        Format::Html => out.write_all(&html::html(&snapshot, &report)),
        Format::Findings => {
            let answer = FindingsAnswer {
                head: Head::of(&snapshot),
                findings: report.findings,
                checked: report.checked,
            };
            out.write_all(&json::to_vec(&answer))?;
            out.write_all(b"\n")
        }
    }
}

/// What a person wants to know first: what is wrong, and what is missing.
#[derive(Deserialize)]
struct Found {
    process: Process,
    coverage: Coverage,
    findings: Vec<Finding>,
}

impl Found {
    fn of(snapshot: &Snapshot, report: Report) -> Self {
        Self {
            process: snapshot.process.clone(),
            coverage: snapshot.coverage.clone(),
            findings: report.findings,
        }
    }

    /// As a server says it.
    fn by(url: &str, token_file: Option<&Path>) -> Result<Self, Failure> {
        let body = fetch::open(url, Format::Findings, token_file)?;
        serde_json::from_reader(io::BufReader::new(body)).map_err(|error| {
            Failure::failed(format!("{url} does not say what is wrong as taskprof does: {error}"))
        })
    }

    fn write(&self, out: &mut dyn Write, frozen_ns: u64) -> io::Result<()> {
        let (process, coverage) = (&self.process, &self.coverage);
        writeln!(
            out,
            "{} (pid {}): {} tasks of {} alive, {} with a stack",
            process.name, process.pid, coverage.listed, coverage.alive, coverage.with_stack
        )?;
        if frozen_ns > 0 {
            let frozen = human_duration(frozen_ns);
            writeln!(out, "  stopped for {frozen} while its memory was copied")?;
        }
        for missing in &coverage.missing {
            writeln!(out, "  not seen: {} ({})", missing.detail, missing.count)?;
        }
        for finding in &self.findings {
            let since = match finding.since_ns {
                0 => String::new(),
                ns => format!(", {}", human_duration(ns)),
            };
            writeln!(out, "\n{}{since}", finding.title)?;
            for sentence in &finding.evidence {
                writeln!(out, "  {sentence}")?;
            }
        }
        writeln!(out)
    }
}

fn pieces(out: &mut dyn Write, mut chunks: impl Chunks) -> io::Result<()> {
    let mut piece = Vec::new();
    loop {
        piece.clear();
        let more = chunks.next(&mut piece);
        out.write_all(&piece)?;
        if !more {
            return Ok(());
        }
    }
}

/// A snapshot of which this is the only reader.
struct Owned(Snapshot);

impl Deref for Owned {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

/// Writes to the file, or to stdout.
fn write(output: Option<&Path>, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Outcome {
    let Some(path) = output else {
        let mut stdout = io::BufWriter::new(io::stdout().lock());
        return match content(&mut stdout).and_then(|()| stdout.flush()) {
            // `taskprof dump ... | head` has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(|error| Failure::failed(format!("the dump broke off: {error}"))),
        };
    };
    let cannot = |error| Failure::failed(format!("cannot write {}: {error}", path.display()));
    let mut file = io::BufWriter::new(File::create(path).map_err(cannot)?);
    content(&mut file).and_then(|()| file.flush()).map_err(cannot)
}
