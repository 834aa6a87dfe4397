//! The dashboard in a real Chromium: against a real server with trouble in it,
//! and in the states that a healthy server cannot be brought into at will.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::server::{Server, tool};

/// One browser at a time: both runs look at the clock.
static BROWSER: Mutex<()> = Mutex::new(());

/// Runs a script of `web/test`, all of whose checks must pass; `None` if a
/// tool is missing.
fn script(name: &str, arguments: &[&OsStr]) -> Option<()> {
    let (node, _chromium) = (tool(&["node"])?, tool(&["chromium"])?);
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
    let _modules = tool(&[web.join("node_modules/playwright-core").to_str().expect("path")])?;
    // Pictures stay outside git, for whoever wants to look.
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&pictures).expect("folder");
    let output = Command::new(node)
        .arg(Path::new("test").join(name))
        .args(arguments)
        .current_dir(&web)
        .env("SCREENSHOTS", &pictures)
        .output()
        .expect("node starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.contains(" passed, 0 failed"), "{said}");
    Some(())
}

#[test]
fn the_page_holds_in_a_real_browser() {
    let _alone = BROWSER.lock().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(&["demo"]);
    let address = server.url("/");
    script("page.mjs", &[address.as_ref()]);
}

/// Else those states would be of another server than ours.
#[test]
fn what_the_fixture_tells_keeps_to_the_schema() {
    let Some(node) = tool(&["node"]) else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema = std::fs::read_to_string(root.join("docs/schema.json")).expect("the schema");
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let fixture = root.join("web/test/fixture.mjs");
    let output = Command::new(node).arg(fixture).arg("--told").output().expect("node starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut told, mut wrong) = (0, String::new());
    for line in String::from_utf8(output.stdout).expect("text").lines() {
        let line: Value = serde_json::from_str(line).expect("JSON");
        let name = line["name"].as_str().expect("a name");
        let mut wanted = schema.clone();
        wanted["$ref"] = format!("#/$defs/{name}").into();
        let validator = jsonschema::validator_for(&wanted).expect("a schema");
        for error in validator.iter_errors(&line["value"]).take(5) {
            let (mode, at) = (&line["mode"], error.instance_path());
            let _ = writeln!(wrong, "{name} while {mode}: {at}: {error:.300}");
        }
        told += 1;
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert_eq!(told, 3 * 16, "all answers in all states");
}

#[test]
fn the_page_holds_in_states_that_only_a_fixture_has() {
    let _alone = BROWSER.lock().unwrap_or_else(PoisonError::into_inner);
    script("states.mjs", &[]);
}
