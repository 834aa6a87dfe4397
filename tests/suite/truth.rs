//! Holds a dump to what the dumped program says about itself.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::targets::marks;

/// What a guard or permit can be that keeps others waiting.
const LOCKS: &[&str] = &["mutex", "rw_lock_read", "rw_lock_write", "permit"];

/// Every way in which the dump differs from the truth.
pub fn differences(truth: &Value, snapshot: &Value) -> Vec<String> {
    let mut wrong = Comparison {
        ids: names(truth),
        tasks: by_id(snapshot),
        resources: BTreeMap::new(),
        wrong: Vec::new(),
    };
    wrong.coverage(truth, snapshot);
    for role in list(&truth["tasks"]) {
        wrong.task(role);
    }
    wrong.holders(truth);
    wrong.distinct();
    wrong.wrong
}

/// The dump is as the program says, or the test fails with all that is wrong.
pub fn must_agree(truth: &Value, snapshot: &Value) {
    let wrong = differences(truth, snapshot);
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Ids are strings in JSON, and numbers where JavaScript would not round them.
fn id(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn names(truth: &Value) -> BTreeMap<String, String> {
    list(&truth["tasks"]).iter().map(|role| (id(&role["name"]), id(&role["id"]))).collect()
}

fn by_id(snapshot: &Value) -> BTreeMap<String, Value> {
    list(&snapshot["tasks"]).iter().map(|task| (id(&task["id"]), task.clone())).collect()
}

struct Comparison {
    /// Ids of the cast by name.
    ids: BTreeMap<String, String>,
    /// The dump's tasks by id.
    tasks: BTreeMap<String, Value>,
    /// What the dump calls each resource.
    resources: BTreeMap<String, BTreeSet<String>>,
    wrong: Vec<String>,
}

impl Comparison {
    fn say(&mut self, role: &Value, what: &str, expected: impl ToString, found: impl ToString) {
        self.wrong.push(format!(
            "{}: {what}: expected {}, found {}",
            text(&role["name"]),
            expected.to_string(),
            found.to_string()
        ));
    }

    fn expect(&mut self, role: &Value, what: &str, expected: &Value, found: &Value) {
        if expected != found {
            self.say(role, what, expected, found);
        }
    }

    fn coverage(&mut self, truth: &Value, snapshot: &Value) {
        let coverage = &snapshot["coverage"];
        let root = json!({"name": "coverage"});
        self.expect(&root, "alive", &truth["alive"], &coverage["alive"]);
        self.expect(&root, "listed", &truth["alive"], &coverage["listed"]);
        let listed = json!(list(&snapshot["tasks"]).len());
        self.expect(&root, "tasks in the list", &truth["alive"], &listed);
        for missing in list(&coverage["missing"]) {
            if missing["count"] != 0 {
                self.say(&root, "missing", "nothing", missing);
            }
        }
    }

    fn task(&mut self, role: &Value) {
        let Some(task) = self.tasks.get(&id(&role["id"])).cloned() else {
            self.say(role, "the task", "listed", "not listed");
            return;
        };
        if role["state"].is_string() {
            self.expect(role, "state", &role["state"], &task["state"]);
        }
        if role["state"] == "idle" {
            self.stacks(role, &task);
            self.wait(role, &task);
            self.holds(role, &task);
        }
    }

    /// The task's own path, what else it awaits, and what it keeps.
    fn stacks(&mut self, role: &Value, task: &Value) {
        let path: Vec<&str> = list(&role["path"]).iter().map(text).collect();
        let mut main = frames(&task["stack"]);
        let (kept, awaited): (Vec<&Value>, Vec<&Value>) =
            list(&task["branches"]).iter().partition(|branch| branch["dormant"] == true);
        let found = |branches: &[&Value]| -> Vec<Vec<Seen>> {
            branches
                .iter()
                .map(|branch| frames(&branch["stack"]))
                .filter(|f| !f.is_empty())
                .collect()
        };
        let expected = |key: &str| -> Vec<Vec<&str>> {
            let arms = list(&role[key]).iter().map(|arm| list(arm).iter().map(text).collect());
            arms.filter(|arm: &Vec<&str>| !arm.is_empty()).collect()
        };
        // The stack is one of the arms and then the path that all share.
        let mut arms = found(&awaited);
        if main.len() >= path.len() {
            let common = main.split_off(main.len() - path.len());
            if !main.is_empty() {
                arms.push(std::mem::replace(&mut main, common));
            } else {
                main = common;
            }
        }
        if !fits(&main, &path) {
            self.say(role, "path", show_expected(&path), show(&main));
        }
        self.each_once(role, "arms", expected("arms"), arms);
        self.each_once(role, "kept futures", expected("dormant"), found(&kept));
        if let Some(why) = task["stack"]["truncated"].as_str() {
            self.say(role, "stack", "whole", why);
        }
    }

    fn each_once(
        &mut self,
        role: &Value,
        what: &str,
        expected: Vec<Vec<&str>>,
        mut found: Vec<Vec<Seen>>,
    ) {
        for arm in expected {
            match found.iter().position(|frames| fits(frames, &arm)) {
                Some(index) => drop(found.swap_remove(index)),
                None => {
                    let others: Vec<String> = found.iter().map(|frames| show(frames)).collect();
                    self.say(role, what, show_expected(&arm), others.join(" | "));
                }
            }
        }
        for frames in found {
            self.say(role, what, "no more", show(&frames));
        }
    }

    fn wait(&mut self, role: &Value, task: &Value) {
        let wait = &task["wait"];
        if let Some(kind) = role["wait"].as_str()
            && wait["kind"] != kind
        {
            self.say(role, "wait", kind, wait);
            return;
        }
        if let Some(name) = role["resource"].as_str() {
            self.resource(role, name, &wait["resource"]);
        }
        if let Some(name) = role["joins"].as_str() {
            let expected = self.ids[name].clone();
            if id(&wait["task"]) != expected {
                self.say(role, "the task waited for", expected, &wait["task"]);
            }
        }
        if !role["queue"].is_null() {
            self.expect(role, "queue", &role["queue"], &wait["queue"]);
        }
        if role["deadline"] == true {
            let waits = list(&task["branches"]).iter().map(|branch| &branch["wait"]);
            let deadlines: Vec<i64> =
                waits.chain([wait]).filter_map(|wait| wait["deadline_in_ns"].as_i64()).collect();
            let hour = 1_800_000_000_000..=3_601_000_000_000;
            if !deadlines.iter().any(|left| hour.contains(left)) {
                self.say(role, "deadline", "within an hour", format!("{deadlines:?}"));
            }
        }
        if !role["fd"].is_null() {
            self.expect(role, "fd", &role["fd"], &wait["fd"]);
            for end in ["local", "peer"] {
                if role[end].is_string() && !text(&wait["detail"]).contains(text(&role[end])) {
                    self.say(role, end, &role[end], &wait["detail"]);
                }
            }
        }
    }

    fn resource(&mut self, role: &Value, name: &str, found: &Value) {
        match found.as_str() {
            Some(found) => {
                self.resources.entry(name.to_owned()).or_default().insert(found.to_owned());
            }
            None => self.say(role, "identity of the resource", name, "none"),
        }
    }

    fn holds(&mut self, role: &Value, task: &Value) {
        let mut found: Vec<&Value> = list(&task["holds"]).iter().collect();
        for hold in list(&role["holds"]) {
            // `-`: in a frame of a library.
            let mark = text(&hold["mark"]);
            let mark = (mark != "-").then(|| marks().get(mark).expect("a mark"));
            let local = text(&hold["local"]);
            let index = found.iter().position(|seen| {
                let named = text(&seen["local"]);
                seen["kind"] == hold["kind"]
                    && (named == local || named.starts_with(&format!("{local}.")))
                    && mark.is_none_or(|mark| {
                        seen["location"]["line"] == mark.line
                            && text(&seen["location"]["file"]).ends_with(&mark.file)
                    })
                    && seen["dormant"] == hold["dormant"]
            });
            match index {
                Some(index) => {
                    let seen = found.swap_remove(index);
                    self.resource(role, text(&hold["resource"]), &seen["resource"]);
                }
                None => self.say(role, "holds", hold, &task["holds"]),
            }
        }
        for seen in found {
            if LOCKS.contains(&text(&seen["kind"])) {
                self.say(role, "holds", "no more", seen);
            }
        }
    }

    /// Whoever waits for a lock is told who holds it.
    fn holders(&mut self, truth: &Value) {
        let mut holders: BTreeMap<&str, BTreeSet<(String, String)>> = BTreeMap::new();
        for role in list(&truth["tasks"]) {
            for hold in list(&role["holds"]) {
                if LOCKS.contains(&text(&hold["kind"])) {
                    let holder = (id(&role["id"]), text(&hold["local"]).to_owned());
                    holders.entry(text(&hold["resource"])).or_default().insert(holder);
                }
            }
        }
        for role in list(&truth["tasks"]) {
            let lock = matches!(
                text(&role["wait"]),
                "mutex" | "rw_lock_read" | "rw_lock_write" | "semaphore" | "once_cell"
            );
            let Some(task) = self.tasks.get(&id(&role["id"])).filter(|_| lock) else { continue };
            let found: BTreeSet<(String, String)> = list(&task["wait"]["holders"])
                .iter()
                .map(|holder| {
                    let local = text(&holder["local"]);
                    (id(&holder["task"]), local.split('.').next().unwrap_or(local).to_owned())
                })
                .collect();
            let expected = holders.get(text(&role["resource"])).cloned().unwrap_or_default();
            if expected != found {
                self.say(role, "holders", format!("{expected:?}"), format!("{found:?}"));
            }
        }
    }

    /// One name, one identity; two names, two identities.
    fn distinct(&mut self) {
        let mut owners: BTreeMap<String, String> = BTreeMap::new();
        for (name, found) in self.resources.clone() {
            let root = json!({"name": name});
            if found.len() > 1 {
                self.say(&root, "identity", "one", format!("{found:?}"));
            }
            for identity in found {
                if let Some(other) = owners.insert(identity.clone(), name.clone()) {
                    self.say(&root, "identity", "its own", format!("{identity}, as {other}"));
                }
            }
        }
    }
}

/// A frame of the program's own code.
struct Seen {
    function: String,
    place: String,
}

fn frames(stack: &Value) -> Vec<Seen> {
    let own = list(&stack["frames"]).iter().filter(|frame| frame["kind"] == "user");
    own.map(|frame| Seen {
        function: text(&frame["function_full"]).to_owned(),
        place: format!("{}:{}", text(&frame["location"]["file"]), frame["location"]["line"]),
    })
    .collect()
}

fn fits(frames: &[Seen], path: &[&str]) -> bool {
    frames.len() == path.len()
        && frames.iter().zip(path).all(|(frame, expected)| {
            if let Some(function) = expected.strip_prefix("fn:") {
                return frame.function.contains(function);
            }
            let mark = marks().get(*expected).unwrap_or_else(|| panic!("no mark {expected}"));
            frame.function.contains(&mark.function)
                && frame.place.ends_with(&format!("{}:{}", mark.file, mark.line))
        })
}

fn show(frames: &[Seen]) -> String {
    let frames: Vec<String> =
        frames.iter().map(|frame| format!("{} {}", frame.function, frame.place)).collect();
    format!("[{}]", frames.join(" <- "))
}

fn show_expected(path: &[&str]) -> String {
    let frames: Vec<String> = path
        .iter()
        .map(|name| match marks().get(*name) {
            Some(mark) => format!("{} {}:{}", mark.function, mark.file, mark.line),
            None => (*name).to_owned(),
        })
        .collect();
    format!("[{}]", frames.join(" <- "))
}
