//! The scoreboard, for people, for programs and for documents.

use serde_json::{Value, json};

use super::cases::{Case, Truth};
use super::run::{Outcome, Told};
use crate::cli::style::{faint, say, strong};

/// A case and how it went.
pub type Result = (&'static Case, Outcome);

/// The table on the terminal, with a paragraph for each case that is wrong.
pub fn print(results: &[Result]) {
    let head = ["case", "truth", "server says", "after", "client says", "after"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(results.iter().map(row));
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for (index, row) in rows.iter().enumerate() {
        let padded = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = padded.collect::<Vec<_>>().join("  ");
        let line = line.trim_end();
        match index {
            0 => say(faint(line)),
            _ if results[index - 1].1.is_right() => say(line),
            _ => say(strong(line)),
        }
    }
    for (case, outcome) in results {
        explain(case, outcome);
    }
}

/// One line each for who was not right.
fn explain(case: &Case, outcome: &Outcome) {
    match outcome {
        Outcome::Done { server, client } => {
            for (who, told) in [("server", server), ("client", client)] {
                let Some(note) = &told.note else { continue };
                let evidence = told.row.as_ref().map_or("", |row| &row.verdict.evidence);
                say(format_args!("{} ({who}): {note}. {evidence}", strong(case.name)));
            }
        }
        Outcome::Skipped(why) => say(faint(format_args!("{} was skipped: {why}", case.name))),
        Outcome::Failed(why) => say(format_args!("{} did not run: {why}", strong(case.name))),
    }
}

fn row((case, outcome): &Result) -> [String; 6] {
    let name = case.name.to_owned();
    match outcome {
        Outcome::Done { server, client } => {
            let [server_says, server_after] = cells(server);
            let [client_says, client_after] = cells(client);
            [name, truth(case), server_says, server_after, client_says, client_after]
        }
        Outcome::Skipped(_) => [&*name, &truth(case), "skipped", "", "", ""].map(str::to_owned),
        Outcome::Failed(_) => [&*name, &truth(case), "did not run", "", "", ""].map(str::to_owned),
    }
}

/// What is true for each side; one word where that is the same.
fn truth(case: &Case) -> String {
    let (server, client) = (case.server.words(), case.client.words());
    if server == client || case.client == Truth::Unasked {
        server
    } else if case.server == Truth::Unasked {
        client
    } else {
        format!("{server} / {client}")
    }
}

fn cells(told: &Told) -> [String; 2] {
    if told.truth == Truth::Unasked {
        return ["-".to_owned(), String::new()];
    }
    let mark = if told.right { "ok" } else { "WRONG" };
    // Where silence is right, how long it took has no meaning.
    let quiet = matches!(told.truth, Truth::Quiet | Truth::AnyOf(_));
    let after = told.after.filter(|_| !quiet).map(|after| format!("{:.1} s", after.as_secs_f64()));
    [format!("{mark} {}", said(told)), after.unwrap_or_default()]
}

/// The verdict in words, with its twins.
fn said(told: &Told) -> String {
    match (&told.row, told.truth) {
        (_, Truth::Gone) if told.right => "gone".to_owned(),
        (None, _) if told.right => "no alarm".to_owned(),
        (None, _) => "nothing".to_owned(),
        (Some(row), _) => {
            let kinds = std::iter::once(&row.verdict.kind).chain(&row.verdict.or);
            kinds.map(|kind| kind.as_str()).collect::<Vec<_>>().join(" + ")
        }
    }
}

/// All of it.
pub fn json(results: &[Result]) -> Value {
    let side = |told: &Told| {
        json!({
            "truth": told.truth.words(),
            "right": told.right,
            "said": said(told),
            "after_ns": told.after.map(|after| after.as_nanos() as u64),
            "note": told.note,
            "stream": told.row.as_ref().map(|row| &row.json),
            "connection": told.row.as_ref().and_then(|row| row.connection.as_ref()),
        })
    };
    let case = |(case, outcome): &Result| {
        let mut value = json!({
            "case": case.name,
            "about": case.about,
            "scenario": case.scenario,
            "method": case.method,
            "within_ns": case.within.as_nanos() as u64,
            "right": outcome.is_right(),
        });
        match outcome {
            Outcome::Done { server, client } => {
                value["server"] = side(server);
                value["client"] = side(client);
            }
            Outcome::Skipped(why) => value["skipped"] = why.as_str().into(),
            Outcome::Failed(why) => value["failed"] = why.as_str().into(),
        }
        value
    };
    json!({ "cases": results.iter().map(case).collect::<Vec<_>>() })
}

/// For a document: each case with what is said of it.
pub fn markdown(results: &[Result]) {
    say("| case | what happens | the server says | the client says |");
    say("| --- | --- | --- | --- |");
    for (case, outcome) in results {
        let (server, client) = match outcome {
            Outcome::Done { server, client } => (words(server), words(client)),
            Outcome::Skipped(why) => (format!("skipped: {why}"), String::new()),
            Outcome::Failed(why) => (format!("did not run: {why}"), String::new()),
        };
        say(format_args!("| `{}` | {} | {server} | {client} |", case.name, case.about));
    }
}

fn words(told: &Told) -> String {
    if told.truth == Truth::Unasked {
        return "-".to_owned();
    }
    let wrong = if told.right { "" } else { "**wrong** " };
    let [_, after] = cells(told);
    let after = if after.is_empty() { after } else { format!(" after {after}") };
    let evidence = told.row.as_ref().filter(|_| told.truth != Truth::Gone);
    let evidence = evidence.map(|row| row.verdict.evidence.replace('|', "\\|"));
    let evidence = evidence.map(|text| format!(": {text}")).unwrap_or_default();
    format!("{wrong}**{}**{after}{evidence}", said(told))
}
