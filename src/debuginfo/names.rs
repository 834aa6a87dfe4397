//! Names as people say them, and whose code a name belongs to.
//!
//! A demangled Rust name says everything and is unreadable for it:
//! `<alloc::boxed::Box<F,A> as core::ops::function::FnOnce<Args>>::call_once`.
//! [`short`] keeps what a person would say, `Box::call_once`:
//!
//! - generics, hashes, `dyn`, references and `mut` go;
//! - `<T as Trait>::method` and `<impl Trait for T>::method` become `T::method`;
//! - of the path the last two names stay (module or type, and function);
//!   compiler-made parts behind them stay as `{closure}`, runs of them once.
//!
//! [`kind`] goes by the source path where debug information has one and by
//! the first name of the path otherwise.

use crate::model::FrameKind;

/// Named parts that a short name keeps.
const KEEP: usize = 2;

/// The short form of a demangled name.
pub fn short(full: &str) -> String {
    let mut parts = Vec::new();
    collect(full.trim(), 0, &mut parts);
    let mut named: Vec<&str> = Vec::new();
    let mut made: Vec<&str> = Vec::new();
    for part in parts {
        match made_by_compiler(part) {
            Some("") => {}
            Some(word) => {
                // Only what stands behind the last name says where we are.
                if made.last() != Some(&word) {
                    made.push(word);
                }
            }
            None => {
                named.push(part);
                made.clear();
            }
        }
    }
    let from = named.len().saturating_sub(KEEP);
    let kept: Vec<&str> = named[from..].iter().copied().chain(made).collect();
    if kept.is_empty() { full.to_owned() } else { kept.join("::") }
}

/// `{{closure}}`, `{closure#0}`, `{async_fn_env#0}`, `{impl#3}`: the word to
/// show for it, empty for none. `None` for a name from the source.
fn made_by_compiler(part: &str) -> Option<&str> {
    let inner = part.strip_prefix('{')?.trim_start_matches('{');
    Some(match inner.split(['#', '}', ':']).next()? {
        "closure" | "async_fn_env" | "closure_env" => "{closure}",
        "async_block" | "async_block_env" => "{async block}",
        "vtable.shim" | "shim" => "{shim}",
        "constant" => "{constant}",
        _ => "",
    })
}

/// Nesting that a name may have before the rest of it is kept as it is:
/// foreign bytes must not exhaust our stack.
const DEPTH: usize = 16;

/// The parts of a path, generics left out, `<T as Trait>` replaced by `T`.
fn collect<'a>(path: &'a str, depth: usize, parts: &mut Vec<&'a str>) {
    if depth > DEPTH {
        parts.push(path);
        return;
    }
    for segment in split_path(path) {
        match segment.strip_prefix('<').and_then(|inner| inner.strip_suffix('>')) {
            // A qualified self type, `<T as Trait>`; as a later segment it is
            // a turbofish, `::<T>`, unless it is an `<impl Trait for T>`.
            Some(inner) if parts.is_empty() => collect(self_type(inner), depth + 1, parts),
            Some(inner) if inner.starts_with("impl ") => {
                parts.clear();
                collect(self_type(inner), depth + 1, parts);
            }
            Some(_) => {}
            None => {
                let name = without_generics(segment);
                if !name.is_empty() {
                    parts.push(name);
                }
            }
        }
    }
}

/// The type of `T as Trait`, `impl Trait for T`, `impl T`, `&mut dyn T + Send`.
fn self_type(text: &str) -> &str {
    let mut text = text;
    if let Some(rest) = text.strip_prefix("impl ") {
        text = split_top(rest, " for ").map_or(rest, |(_, after)| after);
    }
    if let Some((before, _)) = split_top(text, " as ") {
        text = before;
    }
    if let Some((before, _)) = split_top(text, " + ") {
        text = before;
    }
    loop {
        let shorter = text
            .trim_start_matches(['&', '*', ' '])
            .trim_start_matches("mut ")
            .trim_start_matches("const ")
            .trim_start_matches("dyn ");
        if shorter == text {
            return text;
        }
        text = shorter;
    }
}

fn without_generics(segment: &str) -> &str {
    if segment.starts_with(['{', '[', '(']) {
        return segment;
    }
    segment.split(['<', '{']).next().unwrap_or(segment).trim()
}

/// Splits at `::` outside all brackets.
fn split_path(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(path);
    std::iter::from_fn(move || {
        let text = rest?;
        match split_top(text, "::") {
            Some((before, after)) => {
                rest = Some(after);
                Some(before)
            }
            None => {
                rest = None;
                Some(text)
            }
        }
    })
}

/// Splits at the first `pattern` outside all brackets.
fn split_top<'a>(text: &'a str, pattern: &str) -> Option<(&'a str, &'a str)> {
    let bytes = text.as_bytes();
    let mut open = 0_i32;
    let mut index = 0;
    while index < bytes.len() {
        if open == 0 && bytes[index..].starts_with(pattern.as_bytes()) {
            return Some((&text[..index], &text[index + pattern.len()..]));
        }
        match bytes[index] {
            b'<' | b'(' | b'[' | b'{' => open += 1,
            // The `>` of `fn() -> T` closes nothing.
            b'>' if index > 0 && bytes[index - 1] == b'-' => {}
            b'>' | b')' | b']' | b'}' => open -= 1,
            _ => {}
        }
        index += 1;
    }
    None
}

/// Crates that a server's tasks are full of, by the names in the code.
const LIBRARIES: [&str; 40] = [
    "async_stream",
    "async_trait",
    "axum",
    "axum_core",
    "deadpool",
    "futures",
    "futures_channel",
    "futures_core",
    "futures_executor",
    "futures_util",
    "h2",
    "hickory_resolver",
    "http",
    "http_body",
    "http_body_util",
    "hyper",
    "hyper_rustls",
    "hyper_timeout",
    "hyper_util",
    "moka",
    "opentelemetry",
    "opentelemetry_otlp",
    "opentelemetry_sdk",
    "quinn",
    "rdkafka",
    "redis",
    "reqwest",
    "rustls",
    "sqlx_core",
    "tokio_postgres",
    "tokio_rustls",
    "tokio_stream",
    "tokio_tungstenite",
    "tokio_util",
    "tonic",
    "tonic_web",
    "tower",
    "tower_http",
    "tracing",
    "tungstenite",
];

/// Whose code a frame is, from its source path and its full name. `own`: the
/// frame is in the program's own executable, not in a shared library.
///
/// Without a path a Rust name does not tell a library of the program from the
/// program: such frames count as the program's, except for the standard
/// library, tokio, and the crates of most servers.
pub fn kind(file: Option<&str>, full: &str, own: bool) -> FrameKind {
    if let Some(file) = file
        && let Some(kind) = kind_of_path(file)
    {
        return kind;
    }
    let mut parts = Vec::new();
    collect(full, 0, &mut parts);
    let rust = full.contains("::");
    match parts.first() {
        // Ours around the application's futures. From a registry its path says
        // so; from a checkout, or in our own program, its name does. The
        // reference server is an application like any other.
        Some(&"taskprof")
            if matches!(parts.get(1), Some(&("instrument" | "profiler")))
                && !parts.contains(&"tests") =>
        {
            FrameKind::Library
        }
        Some(&("std" | "core" | "alloc" | "tokio" | "mio" | "rust_begin_unwind")) => {
            FrameKind::Runtime
        }
        Some(name) if file.is_none() && LIBRARIES.contains(name) => FrameKind::Library,
        Some(_) if rust => FrameKind::User,
        // C: the program's own if it came with its source.
        Some(_) if own && file.is_some() => FrameKind::User,
        _ => FrameKind::Runtime,
    }
}

/// Whether a path is in a crate of others, or is the folder of one.
pub fn is_foreign(path: &str) -> bool {
    kind_of_path(path).is_some()
}

fn kind_of_path(file: &str) -> Option<FrameKind> {
    // The compiler's sources and what the standard library is made of have
    // virtual paths, real ones only when built with `build-std`.
    if ["/rustc/", "/rust/deps/"].iter().any(|start| file.starts_with(start))
        || file.contains("/lib/rustlib/src/rust/")
    {
        return Some(FrameKind::Runtime);
    }
    let crate_dir = ["/registry/src/", "/git/checkouts/"].iter().find_map(|mark| {
        let (_, rest) = file.split_once(mark)?;
        // registry/src/INDEX/CRATE-1.2.3/src/..., git/checkouts/REPO-HASH/REV/...
        let mut dirs = rest.split('/');
        let first = dirs.next()?;
        Some(if *mark == "/registry/src/" { dirs.next()? } else { first })
    });
    // vendor/CRATE/src/..., and no module of that name.
    let vendored = || Some(file.split_once("/vendor/")?.1.split_once('/')?.0);
    let crate_dir = crate_dir.or_else(vendored)?;
    let name = match crate_dir.rsplit_once('-') {
        Some((name, _version_or_hash)) => name,
        None => crate_dir,
    };
    let runtime = matches!(name, "tokio" | "mio");
    Some(if runtime { FrameKind::Runtime } else { FrameKind::Library })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_names_are_what_a_person_would_say() {
        for (full, expect) in [
            ("taskprof::reference::lab::block", "lab::block"),
            ("myapp::main", "myapp::main"),
            ("main", "main"),
            ("clock_nanosleep", "clock_nanosleep"),
            ("app::feed::watch::{{closure}}", "feed::watch::{closure}"),
            ("app::feed::watch::{closure#0}", "feed::watch::{closure}"),
            ("app::feed::watch::{{closure}}::{{closure}}", "feed::watch::{closure}"),
            ("app::feed::watch::{async_fn_env#0}", "feed::watch::{closure}"),
            ("app::feed::watch::{async_fn#0}::{async_block#1}", "feed::watch::{async block}"),
            ("app::feed::watch::{{closure}}::inner", "watch::inner"),
            ("core::ptr::drop_in_place<alloc::vec::Vec<u8>>", "ptr::drop_in_place"),
            (
                "<alloc::boxed::Box<F,A> as core::ops::function::FnOnce<Args>>::call_once",
                "Box::call_once",
            ),
            (
                "core::ops::function::impls::<impl core::ops::function::FnOnce<A> for &mut F>::call_once",
                "F::call_once",
            ),
            ("<app::Feed as futures_core::stream::Stream>::poll_next", "Feed::poll_next"),
            ("<app::a::Feed>::new", "Feed::new"),
            ("<app::a::Feed<T>>::new::<u8>", "Feed::new"),
            ("<&mut dyn app::Work + Send as app::Run>::run", "Work::run"),
            ("std::thread::local::LocalKey<T>::with", "LocalKey::with"),
            ("tokio::runtime::task::core::Core<T,S>::poll::{{closure}}", "Core::poll::{closure}"),
            ("app::{impl#3}::go", "app::go"),
            ("app::f::<fn(u8) -> app::X>::g", "f::g"),
            ("core::ops::function::FnOnce::call_once{{vtable.shim}}", "FnOnce::call_once"),
            ("", ""),
            ("{{closure}}", "{closure}"),
        ] {
            assert_eq!(short(full), expect, "{full}");
        }
    }

    #[test]
    fn kinds_go_by_path_first() {
        use FrameKind::{Library, Runtime, User};
        let home = "/home/me/.cargo";
        for (file, full, expect) in [
            (Some("/rustc/59807616e1/library/std/src/thread.rs".to_owned()), "std::x::y", Runtime),
            (Some(format!("{home}/registry/src/index-1/tokio-1.54.1/src/a.rs")), "t::x", Runtime),
            (Some(format!("{home}/registry/src/index-1/tokio-util-0.7.2/src/a.rs")), "t", Library),
            (Some(format!("{home}/registry/src/index-1/tonic-0.14.9/src/a.rs")), "t::x", Library),
            (Some(format!("{home}/git/checkouts/h2-0a1b2c/9f8e/src/a.rs")), "h2::x", Library),
            (Some("/src/app/vendor/h2/src/a.rs".to_owned()), "h2::x", Library),
            (Some("src/vendor/mod.rs".to_owned()), "app::vendor::x", User),
            (
                Some("src/instrument/grpc/exec.rs".to_owned()),
                "<taskprof::instrument::grpc::exec::StreamTask<F> as F>::poll",
                Library,
            ),
            (Some("src/reference/echo.rs".to_owned()), "taskprof::reference::echo::x", User),
            (Some("/src/app/src/main.rs".to_owned()), "app::main", User),
            // Generic std code keeps std's name and path, wherever instantiated.
            (None, "<core::pin::Pin<P> as core::future::Future>::poll", Runtime),
            (None, "app::handler", User),
            (None, "hyper::server::conn::http1::Connection<I,S>::poll", Library),
            (None, "<tower::buffer::worker::Worker<T,R> as core::future::Future>::poll", Library),
            // Of the program's own source, whatever it is called.
            (Some("src/redis.rs".to_owned()), "redis::serve", User),
            (None, "clone3", Runtime),
        ] {
            assert_eq!(kind(file.as_deref(), full, true), expect, "{file:?} {full}");
        }
    }

    proptest! {
        #[test]
        fn any_text_has_a_short_name_and_a_kind(text in "[a-z:<>&{}\\[\\]()# +]{0,80}|.{0,40}") {
            let _ = short(&text);
            let _ = kind(Some(&text), &text, false);
        }

        #[test]
        fn deep_nesting_is_harmless(depth in 0usize..1_000) {
            let text = format!("{}a::b{}::c", "<".repeat(depth), " as T>".repeat(depth));
            let _ = short(&text);
        }
    }
}
