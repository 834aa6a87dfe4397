//! The dashboard in a real Chromium, against a real server with trouble in it.

use std::path::Path;
use std::process::Command;

use super::server::{Server, tool};

#[test]
fn the_page_holds_in_a_real_browser() {
    let (Some(node), Some(_chromium)) = (tool(&["node"]), tool(&["chromium"])) else { return };
    let web = Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
    let Some(_modules) = tool(&[web.join("node_modules/playwright-core").to_str().expect("path")])
    else {
        return;
    };
    let server = Server::start(&["demo"]);
    // Pictures stay outside git, for whoever wants to look.
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page");
    std::fs::create_dir_all(&pictures).expect("folder");
    let output = Command::new(node)
        .arg("test/page.mjs")
        .arg(format!("http://{}/", server.http))
        .current_dir(&web)
        .env("SCREENSHOTS", &pictures)
        .output()
        .expect("node starts");
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(said.contains(" passed, 0 failed"), "{said}");
}
