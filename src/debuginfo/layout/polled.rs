//! Names of the functions that people wrote, for the types that poll.

use std::borrow::Cow;

/// Whether a type is what an `async` body was compiled to.
pub(super) fn is_coroutine(name: &str) -> bool {
    // `fn(u32) -> app::copy::{async_fn_env#0}` only makes one.
    let makes = ["fn(", "unsafe fn(", "extern "].iter().any(|start| name.starts_with(start));
    !makes && last(name).is_some_and(|(_, last)| super::scan::is_coroutine_env(last.as_bytes()))
}

/// The function that polls a type, from its linkage name where there is one.
pub(super) fn function(of: &str, linkage: Option<&str>) -> String {
    let demangled = linkage.map(|name| addr2line::demangle_auto(Cow::Borrowed(name), None));
    let demangled = demangled.as_deref();
    match last(of) {
        Some((path, last)) if super::scan::is_coroutine_env(last.as_bytes()) => {
            // The path of the body without its last part is the function;
            // blocks `{impl#3}` are resolved in it.
            match demangled.and_then(|name| resolved(path, without_hash(name))) {
                Some(path) => of_path(&path, last),
                None => of_path(path, last),
            }
        }
        _ => match demangled {
            Some(name) => without_hash(name).to_owned(),
            None => format!("<{of} as core::future::future::Future>::poll"),
        },
    }
}

/// `app::{impl#3}::run::{async_fn#0}` with what `{impl#3}` is put in its place,
/// as the mangled name of a function inside tells it.
fn resolved(path: &str, demangled: &str) -> Option<String> {
    let (_, inside) = path.rsplit_once("{impl#")?;
    let (_, inside) = inside.split_once("}::")?;
    // The function itself, and each part behind the block, is one part of the
    // demangled path as well.
    let mut outer = last(demangled)?.0;
    let mut rest = inside;
    loop {
        let (before, _) = last(outer)?;
        outer = before;
        match last(rest) {
            Some((before, _)) => rest = before,
            None => break,
        }
    }
    Some(format!("{outer}::{inside}"))
}

/// The two types of `poll<Future, Scheduler>`.
pub(super) fn task_arguments(name: &str) -> Option<(&str, &str)> {
    let inner = name.strip_prefix("poll<")?.strip_suffix('>')?;
    match split_arguments(inner)[..] {
        [future, scheduler] => Some((future, scheduler)),
        _ => None,
    }
}

/// X of the vtable `<X as core::future::future::Future>::{vtable}`, for
/// streams as well.
pub(super) fn future_behind(vtable: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(vtable).ok()?;
    let inner = name.strip_prefix('<')?.strip_suffix(">::{vtable}")?;
    // The last ` as ` outside brackets: X may have some of its own.
    let (of, of_trait) = inner.rmatch_indices(" as ").find_map(|(at, found)| {
        let (of, rest) = (&inner[..at], &inner[at + found.len()..]);
        is_balanced(rest).then_some((of, rest))
    })?;
    let path = of_trait.split_once('<').map_or(of_trait, |(path, _)| path);
    matches!(path, "core::future::future::Future" | "futures_core::stream::Stream").then_some(of)
}

fn is_balanced(text: &str) -> bool {
    let count = |wanted: fn(char) -> bool| text.chars().filter(|&letter| wanted(letter)).count();
    let arrows = text.matches("->").count();
    count(|letter| letter == '<') + arrows == count(|letter| letter == '>')
}

/// Splits at commas outside all brackets.
pub(super) fn split_arguments(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut arguments = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'>' if at > 0 && bytes[at - 1] == b'-' => {}
            b'<' | b'(' | b'[' | b'{' => depth += 1,
            b'>' | b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                arguments.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    arguments.push(text[start..].trim());
    arguments.retain(|argument| !argument.is_empty());
    arguments
}

/// `path` and `{async_block_env#0}<T>` to what a person would call it.
fn of_path(path: &str, env: &str) -> String {
    let env = env.split_once('<').map_or(env, |(env, _)| env);
    match env.strip_prefix("{async_fn_env#") {
        Some(_) => path.to_owned(),
        None => format!("{path}::{}", env.replace("_env#", "#")),
    }
}

/// Legacy names end in `::h0123456789abcdef`.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((before, hash))
            if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) =>
        {
            before
        }
        _ => name,
    }
}

/// A path's last part and what is before it, generics of the last part kept.
fn last(name: &str) -> Option<(&str, &str)> {
    let bytes = name.as_bytes();
    let mut depth = 0_usize;
    let mut at = bytes.len();
    while at >= 2 {
        at -= 1;
        match bytes[at] {
            b'>' if at > 0 && bytes[at - 1] == b'-' => at -= 1,
            b'>' | b')' | b']' | b'}' => depth += 1,
            b'<' | b'(' | b'[' | b'{' => depth = depth.saturating_sub(1),
            b':' if depth == 0 && bytes[at - 1] == b':' => {
                return Some((&name[..at - 1], &name[at + 1..]));
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coroutines_are_called_after_the_function_that_was_written() {
        let named = |of: &str| function(of, None);
        assert_eq!(named("app::watch::{async_fn_env#0}"), "app::watch");
        assert_eq!(named("app::watch::{async_fn_env#0}<alloc::vec::Vec<u8>>"), "app::watch");
        assert_eq!(named("app::main::{async_block_env#1}"), "app::main::{async_block#1}");
        assert_eq!(
            named("app::main::{async_fn#0}::{async_block_env#1}<u8>"),
            "app::main::{async_fn#0}::{async_block#1}"
        );
        assert_eq!(named("app::Slow"), "<app::Slow as core::future::future::Future>::poll");
    }

    #[test]
    fn impl_blocks_get_the_name_of_their_type() {
        let legacy = "_ZN3app4Feed5watch28_$u7b$$u7b$closure$u7d$$u7d$17h0123456789abcdefE";
        let of = "app::{impl#3}::watch::{async_fn_env#0}";
        assert_eq!(function(of, Some(legacy)), "app::Feed::watch");
        let inner = "_ZN3app4Feed5watch28_$u7b$$u7b$closure$u7d$$u7d$28_$u7b$$u7b$closure\
                     $u7d$$u7d$17h0123456789abcdefE";
        let of = "app::{impl#3}::watch::{async_fn#0}::{async_block_env#1}";
        assert_eq!(function(of, Some(inner)), "app::Feed::watch::{async_fn#0}::{async_block#1}");
        let of = "app::{impl#3}::watch::{async_fn_env#0}";
        assert_eq!(function(of, None), "app::{impl#3}::watch");
        let slow = "_ZN58_$LT$app..Slow$u20$as$u20$core..future..future..Future$GT$4poll\
                    17h0123456789abcdefE";
        let want = "<app::Slow as core::future::future::Future>::poll";
        assert_eq!(function("app::Slow", Some(slow)), want);
    }

    #[test]
    fn arguments_are_split_at_their_own_commas() {
        assert_eq!(
            task_arguments("poll<app::F<u8, u16>, alloc::sync::Arc<S, A>>"),
            Some(("app::F<u8, u16>", "alloc::sync::Arc<S, A>"))
        );
        assert_eq!(task_arguments("poll<fn(u8, u8) -> u8, S>"), Some(("fn(u8, u8) -> u8", "S")));
        assert_eq!(task_arguments("poll<T>"), None);
        assert_eq!(task_arguments("poll_next<T, S>"), None);
        assert_eq!(split_arguments("(A, B), [C; 3], dyn D<E=(F, G)>").len(), 3);
    }

    #[test]
    fn vtables_of_futures_name_the_future() {
        let of = |name: &str| future_behind(name.as_bytes()).map(str::to_owned);
        assert_eq!(
            of("<app::run::{async_block_env#0} as core::future::future::Future>::{vtable}"),
            Some("app::run::{async_block_env#0}".to_owned())
        );
        assert_eq!(
            of("<app::Map<<T as Iterator>::Item> as futures_core::stream::Stream>::{vtable}"),
            Some("app::Map<<T as Iterator>::Item>".to_owned())
        );
        assert_eq!(of("<u8 as core::fmt::Debug>::{vtable}"), None);
        assert_eq!(of("<app::F as core::future::future::Future>::{vtable_type}"), None);
    }
}
