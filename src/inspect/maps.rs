//! The executable mappings of this process, from `/proc/self/maps`
//! (proc_pid_maps(5)).

use std::ops::Range;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// What an executable mapping shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Backing {
    /// A file; `deleted` if another one, or none, has its name now.
    File { path: PathBuf, deleted: bool },
    /// The code that the kernel maps into every process.
    Vdso,
}

/// An executable mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Addresses in this process.
    pub range: Range<u64>,
    /// Where in the file it begins.
    pub file_offset: u64,
    /// What it shows.
    pub backing: Backing,
}

/// Executable mappings now, by ascending address. Those with neither a file
/// nor the vDSO behind them (code made at run time) are left out.
///
/// # Errors
/// Any failure to read the file.
pub fn executable() -> Result<Vec<Mapping>> {
    let text = std::fs::read("/proc/self/maps")
        .map_err(|error| Error::io("reading /proc/self/maps", error))?;
    Ok(parse(&text))
}

fn parse(text: &[u8]) -> Vec<Mapping> {
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
    let permissions = field()?;
    let file_offset = field()?;
    let (_device, _inode) = (field()?, field()?);
    if permissions.as_bytes().get(2) != Some(&b'x') {
        return None;
    }
    let backing = match rest {
        b"[vdso]" => Backing::Vdso,
        path if path.starts_with(b"/") => {
            let (path, deleted) = match path.strip_suffix(b" (deleted)") {
                Some(path) => (path, true),
                None => (path, false),
            };
            Backing::File { path: std::ffi::OsStr::from_bytes(path).into(), deleted }
        }
        _ => return None,
    };
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    let range = number(start)?..number(end)?;
    (!range.is_empty()).then_some(Mapping { range, file_offset: number(file_offset)?, backing })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_code_with_a_source_is_kept() {
        let text = b"\
55d0c000-55d0f000 r-xp 00002000 fe:00 1234                       /opt/my app (v2)\n\
55d0f000-55d10000 rw-p 00005000 fe:00 1234                       /opt/my app (v2)\n\
7f0000000000-7f0000001000 r-xp 00000000 00:00 0 \n\
7f1000000000-7f1000001000 r-xp 00001000 fe:00 99 /lib/old.so (deleted)\n\
7ffd1000-7ffd2000 r-xp 00000000 00:00 0                          [vdso]\n\
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0          [vsyscall]\n";
        let file = |path: &str, deleted| Backing::File { path: path.into(), deleted };
        assert_eq!(
            parse(text),
            [
                Mapping {
                    range: 0x55d0_c000..0x55d0_f000,
                    file_offset: 0x2000,
                    backing: file("/opt/my app (v2)", false),
                },
                Mapping {
                    range: 0x7f10_0000_0000..0x7f10_0000_1000,
                    file_offset: 0x1000,
                    backing: file("/lib/old.so", true),
                },
                Mapping { range: 0x7ffd_1000..0x7ffd_2000, file_offset: 0, backing: Backing::Vdso },
            ]
        );
    }

    #[test]
    fn this_very_function_is_in_a_mapping() {
        let here = parse as *const () as u64;
        assert!(executable().unwrap().iter().any(|mapping| mapping.range.contains(&here)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(&text);
        }
    }
}
