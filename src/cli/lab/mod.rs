//! `taskprof lab`: every way to be stuck, and what is said of it.
//!
//! ```text
//!   server process ◀──▶ proxy, namespaces or nothing ◀──▶ client process
//!        │ /debug/streams                                      │ /debug/streams
//!        └───────────────▶ this process: truth against verdict ◀┘
//! ```

mod cases;
mod healthy;
mod look;
mod netns;
mod process;
mod run;
mod table;

use std::io::IsTerminal as _;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::RwLock;

use super::args::{LabArgs, LabFormat};
use super::style::{faint, say, strong};
use super::{Failure, Outcome as Done, signals};
use cases::{CASES, Case};
use process::Folder;

/// Runs the cases, or healthy traffic.
pub fn run(args: &LabArgs) -> Done {
    if args.cases.iter().any(|name| name == "list") {
        list();
        return Ok(());
    }
    let chosen = choose(&args.cases)?;
    let stop = signals::stop_token(None)?;
    // One thread, and this one: children end with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start a runtime: {error}")))?;
    let folder = Folder::make()
        .map_err(|error| Failure::failed(format!("cannot make a temporary folder: {error}")))?;
    runtime.block_on(async {
        tokio::select! {
            // What runs is dropped with it, and its processes end.
            () = stop.cancelled() => Err(Failure::failed("interrupted; what it started has ended")),
            done = async {
                match args.healthy {
                    Some(seconds) => {
                        let lasts = Duration::from_secs(seconds);
                        healthy::run(lasts, args.format, &folder).await
                    }
                    None => board(chosen, args, &folder).await,
                }
            } => done,
        }
    })
}

async fn board(chosen: Vec<&'static Case>, args: &LabArgs, folder: &Folder) -> Done {
    let bar = bar(chosen.len() as u64);
    // Whoever computes has it for itself.
    let machine = RwLock::new(());
    let mut results: Vec<_> = stream::iter(chosen.iter().copied().enumerate())
        .map(|(index, case)| {
            let (bar, machine) = (&bar, &machine);
            async move {
                let (_shared, _alone) = match case.computes {
                    false => (Some(machine.read().await), None),
                    true => (None, Some(machine.write().await)),
                };
                bar.set_message(case.name);
                let outcome = run::run(case, folder.path(), args.patience.into()).await;
                bar.inc(1);
                (index, (case, outcome))
            }
        })
        .buffer_unordered(args.jobs.into())
        .collect()
        .await;
    bar.finish_and_clear();
    results.sort_by_key(|(index, _)| *index);
    let results: Vec<_> = results.into_iter().map(|(_, result)| result).collect();
    match args.format {
        LabFormat::Table => table::print(&results),
        LabFormat::Json => say(format_args!("{:#}", table::json(&results))),
        LabFormat::Markdown => table::markdown(&results),
    }
    let wrong = results.iter().filter(|(_, outcome)| !outcome.is_right()).count();
    if wrong == 0 {
        return Ok(());
    }
    Err(Failure::failed(format!("{wrong} of {} cases are wrong", results.len())))
}

fn choose(names: &[String]) -> Result<Vec<&'static Case>, Failure> {
    if names.is_empty() {
        return Ok(CASES.iter().collect());
    }
    let mut chosen: Vec<&'static Case> = Vec::new();
    for name in names {
        let case = cases::find(name).ok_or_else(|| {
            Failure::usage(format!("no case is called {name:?}; `--case list` shows them all"))
        })?;
        if chosen.iter().all(|other| other.name != case.name) {
            chosen.push(case);
        }
    }
    Ok(chosen)
}

fn list() {
    let width = CASES.iter().map(|case| case.name.len()).max().unwrap_or(0);
    for case in CASES {
        say(format_args!("{}  {}", strong(format_args!("{:width$}", case.name)), case.about));
        let (server, client) = (case.server.words(), case.client.words());
        say(faint(format_args!("{:width$}  server: {server}; client: {client}", "")));
    }
}

/// On stderr, where that is a terminal.
fn bar(cases: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar:.cyan/dim} {pos}/{len} {elapsed} {msg}");
    ProgressBar::new(cases).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
