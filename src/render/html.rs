//! One self-contained page of a snapshot, to keep or to send: findings first,
//! then tasks by place. No script, nothing loaded from anywhere.

mod waits;

use std::collections::HashMap;
use std::fmt::{self, Display, Write as _};

use super::json::TaskGroup;
use super::select::{GroupSort, group_tasks, task_filter};
use crate::model::{
    Finding, Frame, FrameKind, Report, Severity, Snapshot, Stack, StackSource, Task, TaskId,
    WaitKind, human_duration,
};

/// Groups on the page; the JSON has them all. A page of this many is 2 MB.
const GROUPS: usize = 1_000;

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--faint:#777;--bad:#b3261e;--warn:#8a5a00}\
@media(prefers-color-scheme:dark){:root{--faint:#aaa;--bad:#ff8a80;--warn:#ffca66}}\
body{font:14px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.3rem}h2{font-size:1.05rem;margin-top:2rem}\
code,pre{font:12.5px/1.5 ui-monospace,monospace}\
.faint{color:var(--faint)}.critical b{color:var(--bad)}.warning b{color:var(--warn)}\
.finding,details{border-top:1px solid var(--line);padding:.5rem 0}\
summary{cursor:pointer}ol{margin:.3rem 0;padding-left:2rem}li{margin:.1rem 0}\
li.runtime,li.lib{color:var(--faint)}";

/// The page.
pub fn html(snapshot: &Snapshot, report: &Report) -> Vec<u8> {
    let mut out = String::with_capacity(64 * 1024);
    let process = &snapshot.process;
    let coverage = &snapshot.coverage;
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{name} {pid}: tasks</title><style>{STYLE}</style>\
         <h1>{name} <span class=\"faint\">pid {pid}, {taken}</span></h1>\
         <p>{listed} tasks listed of {alive} alive, {with_stack} with a stack.",
        name = Escaped(&process.name),
        pid = process.pid,
        taken = snapshot.taken_at,
        listed = coverage.listed,
        alive = coverage.alive,
        with_stack = coverage.with_stack,
    );
    for missing in &coverage.missing {
        let _ = write!(
            out,
            "<br><span class=\"faint\">{} missing: {}</span>",
            missing.count,
            Escaped(&missing.detail)
        );
    }
    out.push_str("<h2>What is wrong now</h2>");
    if report.findings.is_empty() {
        let looked = report.checked.iter().filter(|check| check.unavailable.is_none()).count();
        let _ = write!(out, "<p>Nothing found; {looked} kinds of trouble were looked for.");
    }
    report.findings.iter().for_each(|found| finding(&mut out, found));

    // An empty filter is always understood.
    let Ok(all) = task_filter("") else { return out.into_bytes() };
    let page = group_tasks(snapshot, &all, GroupSort::Count, None, GROUPS);
    let _ = write!(out, "<h2>{} tasks in {} groups</h2>", page.matched, page.total);
    let named = page.groups.iter().flat_map(|one| &one.example_ids);
    let mut tasks: HashMap<TaskId, Option<&Task>> = named.map(|&id| (id, None)).collect();
    for task in &snapshot.tasks {
        if let Some(place) = tasks.get_mut(&task.id) {
            *place = Some(task);
        }
    }
    for one in &page.groups {
        let examples = one.example_ids.iter().filter_map(|id| *tasks.get(id)?);
        group(&mut out, one, examples);
    }
    if page.total > GROUPS as u64 {
        let _ = write!(
            out,
            "<p class=\"faint\">{} smaller groups are not shown.",
            page.total - GROUPS as u64
        );
    }
    out.into_bytes()
}

fn finding(out: &mut String, found: &Finding) {
    let class = match found.severity {
        Severity::Critical => "critical",
        Severity::Warning => "warning",
        Severity::Info => "info",
    };
    let _ = write!(out, "<div class=\"finding {class}\"><b>{class}</b> {}", Escaped(&found.title));
    for sentence in &found.evidence {
        let _ = write!(out, "<br><span class=\"faint\">{}</span>", Escaped(sentence));
    }
    out.push_str("</div>");
}

fn group<'a>(out: &mut String, group: &TaskGroup, examples: impl Iterator<Item = &'a Task>) {
    let name = group.function.as_deref().or(group.waiting_in.as_deref()).unwrap_or("task");
    let _ = write!(out, "<details><summary><b>{}</b> <code>{}</code>", group.count, Escaped(name));
    if let Some(place) = &group.place {
        let _ = write!(out, " <code class=\"faint\">{}</code>", Escaped(place));
    }
    if let Some(waiting) = &group.waiting_in {
        let _ = write!(out, " <span class=\"faint\">in {}</span>", Escaped(waiting));
    }
    if let Some(wait) = group.wait {
        let _ = write!(out, " [{}]", wait.words());
    }
    let longest = group.wait.map_or(group.longest_state_ns, |_: WaitKind| group.longest_wait_ns);
    if longest > 0 {
        let longest = human_duration(longest);
        let _ = write!(out, " <span class=\"faint\">up to {longest}</span>");
    }
    out.push_str("</summary>");
    if let Some(method) = &group.method {
        let _ = write!(out, "<p>gRPC <code>{}</code>", Escaped(method));
    }
    if let Some(stack) = &group.stack {
        let what = match stack.source {
            StackSource::Await => "await chain",
            StackSource::Native => "native stack",
        };
        let _ = write!(out, "<p class=\"faint\">{what}, innermost first</p><ol>");
        stack.frames.iter().for_each(|one| frame(out, one));
        out.push_str("</ol>");
        doubts(out, stack);
    }
    if let Some(spawned_at) = &group.spawned_at {
        let _ = write!(out, "<p class=\"faint\">spawned at <code>{}</code>", Escaped(spawned_at));
    }
    let ids: Vec<String> = group.example_ids.iter().map(ToString::to_string).collect();
    let _ = write!(out, "<p class=\"faint\">tasks {}", ids.join(", "));
    let more = group.count.saturating_sub(ids.len() as u64);
    if more > 0 {
        let _ = write!(out, " and {more} more");
    }
    out.push_str("</p>");
    examples.for_each(|task| waits::task(out, task));
    out.push_str("</details>");
}

/// What keeps a stack from being certain or whole.
fn doubts(out: &mut String, stack: &Stack) {
    if !stack.or_one_of.is_empty() {
        let others = stack.or_one_of.join(", ");
        let _ = write!(out, "<p>or one of: <code>{}</code></p>", Escaped(others));
    }
    if let Some(why) = &stack.truncated {
        let _ = write!(out, "<p class=\"faint\">{}</p>", Escaped(why));
    }
}

fn frame(out: &mut String, frame: &Frame) {
    let class = match frame.kind {
        FrameKind::User => "user",
        FrameKind::Library => "lib",
        FrameKind::Runtime => "runtime",
    };
    let _ = write!(
        out,
        "<li class=\"{class}\"><code title=\"{}\">{}</code>",
        Escaped(&frame.function_full),
        Escaped(&frame.function)
    );
    if let Some(place) = &frame.location {
        let _ = write!(out, " <code class=\"faint\">{}</code>", Escaped(place));
    }
    out.push_str("</li>");
}

/// Text in HTML, attribute values in double quotes included: names and
/// methods come from others.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Sink<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl fmt::Write for Sink<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                let mut rest = text;
                while let Some(at) = rest.find(['<', '>', '&', '"']) {
                    self.0.write_str(&rest[..at])?;
                    self.0.write_str(match rest.as_bytes()[at] {
                        b'<' => "&lt;",
                        b'>' => "&gt;",
                        b'&' => "&amp;",
                        _ => "&quot;",
                    })?;
                    rest = &rest[at + 1..];
                }
                self.0.write_str(rest)
            }
        }
        write!(Sink(f), "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::analyze::analyze;
    use crate::model::{About, Branch, Held, HeldKind, Holder, Resource, Wait, sample};

    fn page(snapshot: &Snapshot) -> String {
        String::from_utf8(html(snapshot, &analyze(snapshot))).unwrap()
    }

    #[test]
    fn the_page_has_every_task_in_a_group_and_loads_nothing() {
        let page = page(&sample::crowd(500));
        assert!(page.contains("500 tasks in "));
        for outside in ["src=", "href=", "url(", "<script", "http:"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    /// Everything that the text says of a wait stands on the page as well.
    #[test]
    fn waits_holders_and_doubts_are_on_the_page() {
        let mut snapshot = sample::stuck_server();
        snapshot.tasks.retain(|task| task.stack.is_some());
        snapshot.tasks.truncate(1);
        let place = snapshot.tasks[0].spawned_at.as_deref().expect("a place").clone();
        let resource = Resource::at(0x7f10).expect("an address");
        let holder =
            Holder { task: TaskId(77), local: Some("guard".into()), location: Some(place) };
        let about = About {
            detail: Some("one <permit>".into()),
            holders: vec![holder],
            ..About::default()
        };
        let wait = Wait {
            queue: Some(61),
            wait_ns: 90_000_000_000,
            ..Wait::new(WaitKind::Mutex, Some(resource)).with(about)
        };
        let mut stack = snapshot.tasks[0].stack.as_deref().expect("a stack").clone();
        stack.or_one_of = vec!["audit::<twin>".into()];
        let stack = Arc::new(stack);
        let task = &mut snapshot.tasks[0];
        task.stack = Some(stack.clone());
        task.wait = Some(wait.clone());
        task.branches = vec![Branch { stack, wait: Some(wait), dormant: true }].into();
        task.holds = vec![Held {
            kind: HeldKind::MpscSender,
            resource,
            local: Some("feed".into()),
            function: Some("app::feeds".into()),
            location: None,
            dormant: false,
            perhaps_dropped: true,
            within: None,
            backlog: None,
        }]
        .into();
        let page = page(&snapshot);
        let on = format!("on {resource}");
        for said in [
            "[mutex lock]",
            "at least 1m30s",
            &on,
            "one &lt;permit&gt;",
            "61 in its queue",
            "held by task 77",
            "guard",
            "kept but not polled",
            "holds mpsc sender",
            "perhaps dropped",
            "app::feeds",
            "or one of: <code>audit::&lt;twin&gt;</code>",
        ] {
            assert!(page.contains(said), "{said} in {page}");
        }
        assert_eq!(page.matches("held by task 77").count(), 2, "of the branch too");
        assert_eq!(page.matches("or one of").count(), 2, "of the branch too");
    }

    #[test]
    fn hostile_names_are_text() {
        let mut snapshot = sample::crowd(1);
        let hostile = "<script>\"&'</script>";
        snapshot.process.name = hostile.into();
        snapshot.tasks[0].method = Some(hostile.into());
        let page = page(&snapshot);
        assert!(!page.contains("<script"), "{page}");
        assert_eq!(page.matches("&lt;script&gt;&quot;&amp;'&lt;/script&gt;").count(), 3);
    }
}
