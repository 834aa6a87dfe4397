//! Names of methods: each kept once, and only so many.
//!
//! The path of a request is the peer's to choose. Without a bound a scanner
//! that calls random paths would fill the memory and every label set above it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use crate::model::StreamKind;

/// Longer paths are cut. gRPC sets no limit; real ones stay far below.
const PATH_LIMIT: usize = 256;

/// What stands for all methods beyond the bound.
const OTHER: &str = "(other)";

/// A method that was called or declared.
#[derive(Debug)]
pub struct Method {
    /// `/pkg.Service/Method`.
    pub name: Arc<str>,
    kind: AtomicU8,
    logged: AtomicBool,
    idle: AtomicBool,
}

impl Method {
    fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            kind: AtomicU8::new(0),
            logged: AtomicBool::new(false),
            idle: AtomicBool::new(false),
        })
    }

    /// Its kind, if it was declared.
    pub fn kind(&self) -> StreamKind {
        match self.kind.load(Relaxed) {
            1 => StreamKind::Unary,
            2 => StreamKind::ClientStreaming,
            3 => StreamKind::ServerStreaming,
            4 => StreamKind::Bidi,
            _ => StreamKind::Unknown,
        }
    }

    fn set_kind(&self, kind: StreamKind) {
        let code = match kind {
            StreamKind::Unknown => 0,
            StreamKind::Unary => 1,
            StreamKind::ClientStreaming => 2,
            StreamKind::ServerStreaming => 3,
            StreamKind::Bidi => 4,
        };
        self.kind.store(code, Relaxed);
    }

    /// Whether its streams are meant to be silent for long.
    pub fn idle(&self) -> bool {
        self.idle.load(Relaxed)
    }

    /// Whether new streams of it are to be logged.
    pub fn logged(&self) -> bool {
        self.logged.load(Relaxed)
    }

    pub(super) fn set_logged(&self, on: bool) {
        self.logged.store(on, Relaxed);
    }
}

/// All methods by name.
#[derive(Debug)]
pub struct Methods {
    bound: usize,
    table: RwLock<HashMap<Arc<str>, Arc<Method>>>,
    other: Arc<Method>,
    refused: AtomicUsize,
}

impl Methods {
    pub(super) fn new(bound: usize) -> Self {
        Self {
            bound,
            table: RwLock::default(),
            other: Method::new(OTHER),
            refused: AtomicUsize::new(0),
        }
    }

    /// The method of a path; `(other)` when the table is full.
    pub fn get(&self, path: &str) -> Arc<Method> {
        self.try_get(path).unwrap_or_else(|| {
            self.refused.fetch_add(1, Relaxed);
            self.other.clone()
        })
    }

    /// The same, but `None` when the table is full.
    pub fn try_get(&self, path: &str) -> Option<Arc<Method>> {
        let known = |path: &str| {
            self.table.read().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
        };
        if let Some(method) = known(path) {
            return Some(method);
        }
        let clean = sanitise(path, PATH_LIMIT);
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(method) = table.get(clean.as_str()) {
            return Some(method.clone());
        }
        if table.len() >= self.bound {
            return None;
        }
        let method = Method::new(&clean);
        table.insert(method.name.clone(), method.clone());
        Some(method)
    }

    /// Declares a method's kind. Declared methods keep their names even when
    /// strangers have filled the table: the bound does not hold for them.
    pub fn declare(&self, path: &str, kind: StreamKind) {
        self.declared(path).set_kind(kind);
    }

    /// Declares that a method's streams are silent for long by design.
    pub fn declare_idle(&self, path: &str) {
        self.declared(path).idle.store(true, Relaxed);
    }

    fn declared(&self, path: &str) -> Arc<Method> {
        let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
        match table.get(path) {
            Some(method) => method.clone(),
            None => {
                let method = Method::new(&sanitise(path, PATH_LIMIT));
                table.insert(method.name.clone(), method.clone());
                method
            }
        }
    }

    /// How many calls went under `(other)`.
    pub fn refused(&self) -> usize {
        self.refused.load(Relaxed)
    }
}

/// Text from a peer without control characters (terminals and logs obey
/// them), cut to `limit` bytes.
pub fn sanitise(text: &str, limit: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(limit));
    for c in text.chars() {
        let c = if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
        if clean.len() + c.len_utf8() > limit {
            break;
        }
        clean.push(c);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_cannot_fill_the_table() {
        let methods = Methods::new(3);
        for i in 0..10 {
            methods.get(&format!("/random/{i}"));
        }
        assert_eq!(methods.refused(), 7);
        assert_eq!(&*methods.get("/random/9").name, OTHER);
        methods.declare("/real.Service/Call", StreamKind::Bidi);
        let real = methods.get("/real.Service/Call");
        assert_eq!((&*real.name, real.kind()), ("/real.Service/Call", StreamKind::Bidi));
    }

    #[test]
    fn text_from_a_peer_is_cut_and_cleaned() {
        let methods = Methods::new(3);
        let long = format!("/{}", "é".repeat(300));
        let name = methods.get(&long).name.clone();
        assert!(name.len() <= PATH_LIMIT && long.starts_with(&*name), "{name}");
        assert_eq!(methods.get(&long).name, name);
        assert_eq!(sanitise("a\x1b[2Jb\nc", 99), "a\u{fffd}[2Jb\u{fffd}c");
        assert_eq!(sanitise("\n", 2), "", "the replacement does not fit");
    }
}
