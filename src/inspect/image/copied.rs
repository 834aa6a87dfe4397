//! A process's own memory, copied while it stood still.
//!
//! Three layers, asked in this order: pages that were copied; zeros, where
//! anonymous memory was never touched; and for what cannot change (code,
//! constants) the process itself, as long as it lives.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use super::pieces::{Pieces, Place};
use super::{Fault, Memory};
use crate::sys::region::Region;

/// The copy.
pub struct Copied {
    pub(super) bytes: Region,
    pub(super) pieces: Pieces,
    /// Private writable mappings.
    pub(super) writable: Vec<Range<u64>>,
    /// Those of them without a file: zeros where nothing was copied.
    pub(super) zeros: Vec<Range<u64>>,
    /// `/proc/PID/mem`. The open file belongs to the program it was opened
    /// for: once that is gone it reads nothing, never another program with
    /// the same number.
    pub(super) live: File,
}

impl Memory for Copied {
    fn read(&mut self, address: u64, to: &mut [u8]) -> Result<(), Fault> {
        let mut done = 0;
        while done < to.len() {
            let at = address.checked_add(done as u64).ok_or(Fault { address })?;
            let rest = &mut to[done..];
            let some = |len: u64| usize::try_from(len).unwrap_or(usize::MAX).min(rest.len());
            done += match self.pieces.find(at) {
                Place::Held { at, len } => {
                    let len = some(len);
                    let from = at as usize;
                    rest[..len].copy_from_slice(&self.bytes[from..from + len]);
                    len
                }
                Place::Hole { len } => {
                    let after = self.zeros.partition_point(|range| range.start <= at);
                    let within = after
                        .checked_sub(1)
                        .map(|index| &self.zeros[index])
                        .filter(|range| range.contains(&at));
                    match within {
                        Some(range) => {
                            let len = some(len.min(range.end - at));
                            rest[..len].fill(0);
                            len
                        }
                        None => {
                            let next = self.zeros.get(after).map_or(u64::MAX, |range| range.start);
                            let len = some(len.min(next - at));
                            let part = &mut rest[..len];
                            self.live.read_exact_at(part, at).map_err(|_| Fault { address: at })?;
                            len
                        }
                    }
                }
            };
        }
        Ok(())
    }

    fn writable(&self) -> &[Range<u64>] {
        &self.writable
    }
}
