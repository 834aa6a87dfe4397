//! How findings speak.

use crate::model::{Stack, human_duration};

/// `1 stream`, `212 streams`.
pub fn count(n: u64, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

/// `1 task waits`, `8 tasks wait`.
pub fn count_verb(n: u64, one: &str, verb: &str) -> String {
    format!("{} {verb}{}", count(n, one), if n == 1 { "s" } else { "" })
}

/// `Feed/Watch` of `/pkg.v1.Feed/Watch`, as people call it.
pub fn method(path: &str) -> &str {
    let path = path.trim_start_matches('/');
    let service = path.find('/').unwrap_or(path.len());
    let start = path[..service].rfind('.').map_or(0, |dot| dot + 1);
    &path[start..]
}

/// `a mutex lock`, `an IO wait, read`.
pub fn article(words: &str) -> String {
    let vowel = words.starts_with(['a', 'e', 'i', 'o', 'u', 'I']);
    format!("{} {words}", if vowel { "an" } else { "a" })
}

/// With a capital letter and a full stop.
pub fn sentence(clause: &str) -> String {
    let mut rest = clause.chars();
    match rest.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), rest.as_str()),
        None => String::new(),
    }
}

/// `for 3.2s`.
pub fn since(ns: u64) -> String {
    format!("for {}", human_duration(ns))
}

/// `charge_card (src/billing.rs:88)`, where a person should look first.
pub fn place(stack: &Stack) -> Option<String> {
    let frame = stack.user_frame().or_else(|| stack.frames.first())?;
    Some(match &frame.location {
        Some(location) => format!("{} ({location})", frame.function),
        None => frame.function.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_named_as_people_do() {
        assert_eq!(method("/billing.v1.Feed/Watch"), "Feed/Watch");
        assert_eq!(method("/Feed/Watch"), "Feed/Watch");
        assert_eq!(method("/odd"), "odd");
        assert_eq!(method(""), "");
    }
}
