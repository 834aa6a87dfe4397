//! What the documents say holds: links lead somewhere, requests are answered.

use std::fs;
use std::path::{Path, PathBuf};

use super::server::Server;

/// README.md and the documents under docs/.
fn documents() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    for entry in fs::read_dir(root.join("docs")).expect("docs") {
        let path = entry.expect("entry").path();
        if path.extension().is_some_and(|ext| ext == "md") {
            files.push(path);
        }
    }
    assert!(files.len() >= 5, "{files:?}");
    files.into_iter().map(|file| (file.clone(), fs::read_to_string(file).expect("text"))).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut seen = 0;
    for (file, text) in documents() {
        let folder = file.parent().expect("a folder");
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        let images = ["src=\"", "srcset=\""].into_iter().flat_map(|attribute| {
            text.split(attribute).skip(1).filter_map(|rest| rest.split('"').next())
        });
        for link in links.chain(images).filter(|link| !link.contains("://")) {
            assert!(folder.join(link).exists(), "{}: no {link}", file.display());
            seen += 1;
        }
    }
    assert!(seen >= 8, "only {seen} links found");
}

/// The words of a shell line with simple quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        if at % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// The path and query that a documented curl line asks for. `None` for lines
/// that need what a test has not: a token, a socket's path, a stream's id.
fn request(line: &str) -> Option<String> {
    let line = line.trim_start().trim_start_matches("$ ").strip_prefix("curl ")?;
    let line = line.split(" | ").next()?;
    let mut path = None;
    let mut query = Vec::new();
    let mut words = words(line).into_iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-s" | "-sG" => {}
            "--data-urlencode" | "-d" => {
                let given = words.next()?;
                let (name, value) = given.split_once('=')?;
                let value: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
                query.push(format!("{name}={value}"));
            }
            "#" => break,
            url => path = Some(url.strip_prefix("http://127.0.0.1:6060")?.to_owned()),
        }
    }
    let path = path?;
    Some(if query.is_empty() { path } else { format!("{path}?{}", query.join("&")) })
}

#[test]
fn documented_requests_are_answered() {
    let server = Server::with_faults(&[]);
    let mut asked = 0;
    for (file, text) in documents() {
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let Some(path) = request(line) else { continue };
            // Shown with its answer: an error that is meant.
            let meant = lines.peek().is_some_and(|next| next.contains("{\"error\""));
            let answer = server.get(&path);
            let expected = if meant { 400 } else { 200 };
            assert_eq!(answer.status, expected, "{}: {path}: {}", file.display(), answer.text());
            asked += 1;
        }
    }
    assert!(asked >= 8, "only {asked} requests found");
}

#[test]
fn curl_lines_are_understood() {
    assert_eq!(
        request("    $ curl -s 'http://127.0.0.1:6060/debug/tasks?sort=zz' | jq ."),
        Some("/debug/tasks?sort=zz".to_owned())
    );
    assert_eq!(
        request("curl -sG http://127.0.0.1:6060/x --data-urlencode 'filter=a b' -d limit=2"),
        Some("/x?filter=%61%20%62&limit=%32".to_owned())
    );
    assert_eq!(request("curl --unix-socket ./debug.sock http://localhost/x"), None);
    assert_eq!(request("curl -s -X POST 'http://127.0.0.1:6060/x'"), None);
    assert_eq!(request("cargo test"), None);
}

/// Code as it is compiled: without comments, and whatever its lines are.
fn code(text: &str) -> String {
    let lines = text.lines().map(|line| line.split(" // ").next().unwrap_or_default());
    lines.flat_map(str::split_whitespace).collect()
}

/// README's Rust is that of the crate's documentation, which the doc tests compile.
#[test]
fn the_three_lines_are_those_that_are_compiled() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect(path);
    let readme = read("README.md");
    let blocks: Vec<_> = readme.split("```rust\n").skip(1).collect();
    assert!(!blocks.is_empty(), "README shows Rust");
    let library = read("src/lib.rs");
    let compiled: Vec<_> = library.lines().filter_map(|line| line.strip_prefix("//!")).collect();
    let compiled = code(&compiled.join("\n"));
    for block in blocks {
        let block = code(block.split("```").next().unwrap_or_default());
        assert!(compiled.contains(&block), "{block}");
    }
}
