//! What each mapping of this process costs a copy of it, from
//! `/proc/PID/smaps` (proc_pid_smaps(5)).
//!
//! The kernel walks all page tables to tell, some milliseconds for each GiB:
//! this is not for every look.

use std::ops::Range;

use super::maps;
use crate::error::{Error, Result};

/// One mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Addresses in the process.
    pub range: Range<u64>,
    /// Bytes of private memory in small pages: their tables `fork` copies one
    /// entry after the other.
    pub small: u64,
    /// `fork` copies it: the program has not asked for the contrary.
    pub forked: bool,
}

/// All mappings of this process now, by ascending address.
///
/// # Errors
/// Any failure to read the file.
pub fn own() -> Result<Vec<Footprint>> {
    let text = std::fs::read("/proc/self/smaps")
        .map_err(|error| Error::io("reading /proc/self/smaps", error))?;
    Ok(parse(&text))
}

/// A mapping's line as in `maps`, then lines of a name and a value each.
fn parse(text: &[u8]) -> Vec<Footprint> {
    let mut found: Vec<Footprint> = Vec::new();
    for line in text.split(|&byte| byte == b'\n') {
        if let [mapping] = &maps::parse(line)[..] {
            let range = mapping.range.clone();
            found.push(Footprint { range, small: 0, forked: false });
        } else if let Some(last) = found.last_mut()
            && let Ok(line) = std::str::from_utf8(line)
            && let Some((name, value)) = line.split_once(':')
        {
            match name {
                "Anonymous" => last.small = bytes(value),
                // The line comes after that of `Anonymous`, and counts in it.
                "AnonHugePages" => last.small = last.small.saturating_sub(bytes(value)),
                // "dc": do not copy. Without the line nothing is known.
                "VmFlags" => last.forked = !value.split_whitespace().any(|flag| flag == "dc"),
                _ => {}
            }
        }
    }
    found
}

fn bytes(value: &str) -> u64 {
    let kilobytes = value.trim().strip_suffix(" kB").and_then(|digits| digits.parse::<u64>().ok());
    kilobytes.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_and_flags_are_read() {
        let text = b"\
7f0000000000-7f0040000000 rw-p 00000000 00:00 0 \n\
Size:            1048576 kB\n\
Anonymous:       1000000 kB\n\
AnonHugePages:    999424 kB\n\
VmFlags: rd wr mr mw me ac sd \n\
7f1000000000-7f1001000000 rw-p 00000000 00:00 0 \n\
Anonymous:             8 kB\n\
AnonHugePages:         0 kB\n\
VmFlags: rd wr mr mw me dc ac \n\
7f2000000000-7f2001000000 rw-p 00000000 00:00 0 \n\
Anonymous: many kB\n";
        let found =
            |start, len, small, forked| Footprint { range: start..start + len, small, forked };
        assert_eq!(
            parse(text),
            [
                found(0x7f00_0000_0000, 1 << 30, 576 << 10, true),
                found(0x7f10_0000_0000, 16 << 20, 8 << 10, false),
                found(0x7f20_0000_0000, 16 << 20, 0, false),
            ]
        );
    }

    #[test]
    fn this_process_tells_what_it_has() {
        let mut kept = vec![0_u8; 8 << 20];
        kept.chunks_mut(4096).for_each(|page| page[0] = 1);
        let all = own().unwrap();
        let at = kept.as_ptr() as u64 + (4 << 20);
        let of = all.iter().find(|it| it.range.contains(&at)).unwrap();
        assert!(of.forked);
        assert!(all.iter().any(|it| it.small > 0));
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            parse(&text);
        }
    }
}
