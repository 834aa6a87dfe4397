//! A comparison for people: the largest changes first, one line for each.

use std::fmt::Write as _;

use super::{Became, Change, Changes, ConnectionGroup, Diff, StreamGroup};
use crate::model::human_duration;
use crate::render::json::TaskGroup;

/// All of it, in lines.
pub fn text(diff: &Diff) -> String {
    let mut out = String::new();
    head(&mut out, diff);
    section(&mut out, "Tasks", &diff.tasks, task_group);
    section(&mut out, "Streams", &diff.streams, stream_group);
    section(&mut out, "Connections", &diff.connections, connection_group);
    out
}

fn head(out: &mut String, diff: &Diff) {
    let (before, after) = (&diff.before, &diff.after);
    let apart = human_duration(diff.apart_ns.unsigned_abs());
    let process = &after.process;
    let _ = writeln!(out, "{} (pid {}): {apart} apart", plain(&process.name), process.pid);
    if diff.apart_ns < 0 {
        let _ = writeln!(out, "  the second was taken first, at {}", after.taken_at);
    }
    if !diff.same_process {
        let of = &before.process;
        let _ = writeln!(
            out,
            "  another process than the first, which is {} (pid {}, boot id {}; now {}): groups \
             are compared by their places",
            plain(&of.name),
            of.pid,
            plain(&of.boot_id),
            plain(&process.boot_id),
        );
    }
    for (which, head) in [("first", before), ("second", after)] {
        for missing in head.coverage.missing.iter().filter(|missing| missing.count > 0) {
            let (detail, count) = (plain(&missing.detail), missing.count);
            let _ = writeln!(out, "  not seen by the {which}: {detail} ({count})");
        }
    }
}

fn section<G>(out: &mut String, title: &str, changes: &Changes<G>, name: impl Fn(&G) -> String) {
    let Changes { before, after, came, went, changed, unchanged, groups } = changes;
    let difference = after.cast_signed() - before.cast_signed();
    let _ = write!(out, "\n{title}: {before} to {after} ({difference:+})");
    if let (Some(came), Some(went)) = (came, went) {
        let _ = write!(out, ", {came} came, {went} went");
    }
    let plural = if *changed == 1 { "" } else { "s" };
    let _ = writeln!(out, "; {changed} group{plural} changed, {unchanged} did not");
    for Change { became, before, after, change, group } in groups {
        let sizes = match became {
            Became::New | Became::Gone => String::new(),
            Became::Grew | Became::Shrank => format!(" {before} to {after}"),
        };
        let _ = writeln!(out, "  {change:>+6} {}{sizes}  {}", became.as_str(), plain(&name(group)));
    }
    let more = changed - groups.len() as u64;
    if more > 0 {
        let _ = writeln!(out, "  and {more} more");
    }
}

fn task_group(group: &TaskGroup) -> String {
    // Without code of the program's own on its stack the place is the spawn's.
    let (name, of) = match &group.function {
        Some(function) => (&**function, ""),
        None => (group.waiting_in.as_deref().unwrap_or("a task"), "spawned at "),
    };
    let mut text = name.to_owned();
    if let Some(place) = &group.place {
        let _ = write!(text, " {of}{place}");
    }
    if let Some(wait) = group.wait {
        let _ = write!(text, " [{}]", wait.words());
    }
    if let Some(method) = &group.method {
        let _ = write!(text, " {method}");
    }
    text
}

fn stream_group(group: &StreamGroup) -> String {
    let StreamGroup { side, method, phase, verdict } = group;
    format!("{} {method} {} {}", side.as_str(), phase.as_str(), verdict.as_str())
}

fn connection_group(group: &ConnectionGroup) -> String {
    let known = |address: &Option<std::sync::Arc<str>>| {
        address.as_deref().unwrap_or("an unknown address").to_owned()
    };
    let mut text = format!(
        "{} of {}, client at {}",
        group.side.as_str(),
        known(&group.server),
        known(&group.client)
    );
    if group.closed {
        text.push_str(", closed");
    }
    text
}

/// Files come from anywhere: nothing in them steers a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{VerdictKind, sample};
    use crate::render::diff::Census;

    #[test]
    fn nothing_in_a_file_steers_the_terminal() {
        let mut after = sample::busy_server();
        after.streams[0].method = "/x\u{1b}[2J\n/Y".into();
        let census = |snapshot| Census::of(snapshot, |_| VerdictKind::Healthy);
        let told = text(&Diff::of(census(&sample::busy_server()), census(&after), 9));
        assert!(told.contains("[2J"), "{told}");
        assert!(told.chars().all(|c| c == '\n' || !c.is_control()), "{told:?}");
    }
}
