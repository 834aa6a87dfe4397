//! Stacks: where code is, innermost frame first.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A place in the source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Location {
    /// Path as the compiler recorded it.
    pub file: Arc<str>,
    /// Line, from 1; 0 where unknown.
    pub line: u32,
    /// Column, from 1; 0 where unknown.
    pub column: u32,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Whose code a frame is: what a person looks at first is their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum FrameKind {
    /// The program's own code.
    User,
    /// A crate from a registry or a git checkout.
    Library,
    /// The standard library, libc, tokio itself.
    Runtime,
}

/// One function on a stack.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Frame {
    /// Short name, for people: the last path segments, without generics.
    pub function: Arc<str>,
    /// The whole demangled name.
    pub function_full: Arc<str>,
    /// Where in the source, if debug information tells.
    pub location: Option<Location>,
    /// Whose code it is.
    pub kind: FrameKind,
    /// The compiler put this function into the one below it on the stack.
    pub inlined: bool,
    /// Code address as linked (file address), 0 for frames that have none.
    #[serde(with = "hex")]
    #[cfg_attr(feature = "cli", schemars(with = "String"))]
    pub address: u64,
}

/// How a stack was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum StackSource {
    /// The await chain of a suspended task, read from memory.
    Await,
    /// The native stack of the thread that was polling the task.
    Native,
}

/// A stack, innermost frame first.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
pub struct Stack {
    /// How it was obtained.
    pub source: StackSource,
    /// Innermost first.
    pub frames: Vec<Frame>,
    /// Why frames are missing, if any are.
    pub truncated: Option<Arc<str>>,
    /// The linker merged functions of equal code: the task could as well be
    /// one of these, by the full names of their futures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub or_one_of: Vec<Arc<str>>,
}

impl Stack {
    /// The innermost frame of the program's own code.
    pub fn user_frame(&self) -> Option<&Frame> {
        self.frames.iter().find(|frame| frame.kind == FrameKind::User)
    }
}

/// Addresses are hexadecimal strings in JSON (`"0x4a31f0"`).
mod hex {
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(address: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{address:#x}"))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let digits = text.strip_prefix("0x").unwrap_or(&text);
        u64::from_str_radix(digits, 16).map_err(serde::de::Error::custom)
    }
}
