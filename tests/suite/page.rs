//! The dashboard in a real Chromium: against a real server with trouble in it,
//! and in the states that a healthy server cannot be brought into at will.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

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

#[test]
fn the_page_holds_in_states_that_only_a_fixture_has() {
    let _alone = BROWSER.lock().unwrap_or_else(PoisonError::into_inner);
    script("states.mjs", &[]);
}
