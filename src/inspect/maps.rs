//! The mappings of a process, from `/proc/PID/maps` (proc_pid_maps(5)).

use std::ops::Range;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// What a mapping shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Backing {
    /// A file; `deleted` if another one, or none, has its name now.
    File { path: PathBuf, deleted: bool },
    /// The code that the kernel maps into every process.
    Vdso,
    /// Memory: heaps, stacks.
    Anonymous,
    /// Pages of the kernel's that only the process itself can read, such as
    /// `[vvar]`.
    Kernel,
}

/// A mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Addresses in the process.
    pub range: Range<u64>,
    /// `rwx` and, last, whether writes stay private.
    pub permissions: Permissions,
    /// Where in the file it begins.
    pub file_offset: u64,
    /// What it shows.
    pub backing: Backing,
}

/// What may be done with a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// It can be read.
    pub read: bool,
    /// It can be written.
    pub write: bool,
    /// It holds code.
    pub execute: bool,
    /// What is written does not reach the file or other processes.
    pub private: bool,
}

/// All mappings of this process now, by ascending address.
///
/// # Errors
/// Any failure to read the file.
pub fn own() -> Result<Vec<Mapping>> {
    let text = std::fs::read("/proc/self/maps")
        .map_err(|error| Error::io("reading /proc/self/maps", error))?;
    Ok(parse(&text))
}

/// All mappings of another process now.
///
/// # Errors
/// `NotFound`, `Permission`.
pub fn of(pid: i32) -> Result<Vec<Mapping>> {
    let path = format!("/proc/{pid}/maps");
    let text = std::fs::read(&path).map_err(|error| Error::io(format!("reading {path}"), error))?;
    Ok(parse(&text))
}

/// Those with code of a file or of the vDSO; code made at run time is left out.
pub fn executable(mut mappings: Vec<Mapping>) -> Vec<Mapping> {
    mappings.retain(|mapping| {
        mapping.permissions.execute
            && matches!(mapping.backing, Backing::File { .. } | Backing::Vdso)
    });
    mappings
}

/// Where heaps, stacks and statics are: addresses whose content is the
/// process's own and can change. Adjacent mappings are one range.
pub fn writable(mappings: &[Mapping]) -> Vec<Range<u64>> {
    joined(mappings.iter().filter(|mapping| mapping.is_heap()))
}

/// Those of them that are zeros where nothing was written.
#[cfg(feature = "cli")]
pub fn zeros(mappings: &[Mapping]) -> Vec<Range<u64>> {
    let anonymous = |mapping: &&Mapping| mapping.backing == Backing::Anonymous;
    joined(mappings.iter().filter(|mapping| mapping.is_heap()).filter(anonymous))
}

impl Mapping {
    /// Private memory without a file.
    pub fn is_memory(&self) -> bool {
        self.permissions.private && self.backing == Backing::Anonymous
    }

    /// Private, readable and writable.
    pub fn is_heap(&self) -> bool {
        let Permissions { read, write, private, .. } = self.permissions;
        read && write && private
    }
}

fn joined<'a>(mappings: impl Iterator<Item = &'a Mapping>) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for mapping in mappings {
        match ranges.last_mut() {
            Some(last) if last.end == mapping.range.start => last.end = mapping.range.end,
            _ => ranges.push(mapping.range.clone()),
        }
    }
    ranges
}

pub(super) fn parse(text: &[u8]) -> Vec<Mapping> {
    text.split(|&byte| byte == b'\n').filter_map(parse_line).collect()
}

/// `55d0c000-55d0f000 r-xp 00002000 fe:00 1234    /usr/bin/app`
fn parse_line(line: &[u8]) -> Option<Mapping> {
    use std::os::unix::ffi::OsStrExt as _;

    let mut rest = line;
    let mut field = || {
        let end = rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
        let (field, after) = rest.split_at(end);
        rest = after.trim_ascii_start();
        std::str::from_utf8(field).ok()
    };
    let (start, end) = field()?.split_once('-')?;
    let flags = field()?.as_bytes();
    let flag = |nth, letter| flags.get(nth) == Some(&letter);
    let permissions = Permissions {
        read: flag(0, b'r'),
        write: flag(1, b'w'),
        execute: flag(2, b'x'),
        private: flag(3, b'p'),
    };
    let file_offset = field()?;
    let (_device, _inode) = (field()?, field()?);
    let backing = match rest {
        b"[vdso]" => Backing::Vdso,
        path if path.starts_with(b"[v") => Backing::Kernel,
        path if path.starts_with(b"/") => {
            let (path, deleted) = match path.strip_suffix(b" (deleted)") {
                Some(path) => (path, true),
                None => (path, false),
            };
            Backing::File { path: std::ffi::OsStr::from_bytes(path).into(), deleted }
        }
        _ => Backing::Anonymous,
    };
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    let range = number(start)?..number(end)?;
    let file_offset = number(file_offset)?;
    (!range.is_empty()).then_some(Mapping { range, permissions, file_offset, backing })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &[u8] = b"\
55d0c000-55d0f000 r-xp 00002000 fe:00 1234                       /opt/my app (v2)\n\
55d0f000-55d10000 rw-p 00005000 fe:00 1234                       /opt/my app (v2)\n\
55d10000-55d12000 rw-p 00000000 00:00 0                          [heap]\n\
7f0000000000-7f0000001000 r-xp 00000000 00:00 0 \n\
7f1000000000-7f1000001000 r-xp 00001000 fe:00 99 /lib/old.so (deleted)\n\
7f1000001000-7f1000002000 rw-s 00000000 00:01 7 /dev/shm/shared\n\
7ffd0000-7ffd1000 r--p 00000000 00:00 0                          [vvar]\n\
7ffd1000-7ffd2000 r-xp 00000000 00:00 0                          [vdso]\n\
7ffe0000-7ffe1000 rw-p 00000000 00:00 0                          [anon:pool]\n\
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0          [vsyscall]\n";

    #[test]
    fn only_code_with_a_source_is_kept() {
        let file = |path: &str, deleted| Backing::File { path: path.into(), deleted };
        let permissions = Permissions { read: true, write: false, execute: true, private: true };
        assert_eq!(
            executable(parse(TEXT)),
            [
                Mapping {
                    range: 0x55d0_c000..0x55d0_f000,
                    permissions,
                    file_offset: 0x2000,
                    backing: file("/opt/my app (v2)", false),
                },
                Mapping {
                    range: 0x7f10_0000_0000..0x7f10_0000_1000,
                    permissions,
                    file_offset: 0x1000,
                    backing: file("/lib/old.so", true),
                },
                Mapping {
                    range: 0x7ffd_1000..0x7ffd_2000,
                    permissions,
                    file_offset: 0,
                    backing: Backing::Vdso
                },
            ]
        );
    }

    #[test]
    fn private_writable_mappings_are_joined() {
        let ranges = [0x55d0_f000..0x55d1_2000, 0x7ffe_0000..0x7ffe_1000];
        assert_eq!(writable(&parse(TEXT)), ranges);
        let ranges = [0x55d1_0000..0x55d1_2000, 0x7ffe_0000..0x7ffe_1000];
        assert_eq!(zeros(&parse(TEXT)), ranges);
    }

    #[test]
    fn this_very_function_is_in_a_mapping() {
        let here = parse as *const () as u64;
        assert!(executable(own().unwrap()).iter().any(|mapping| mapping.range.contains(&here)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(&text);
        }
    }
}
