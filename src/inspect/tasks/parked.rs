//! This very process as an image: its tasks are parked, so it holds still.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock};

use crate::debuginfo::layout::Dwarf;
use crate::inspect::image::{Fault, Image, Memory, Origin};

/// `/proc/self/mem`.
struct Own {
    file: File,
    writable: Vec<Range<u64>>,
}

impl Memory for Own {
    fn read(&mut self, address: u64, to: &mut [u8]) -> Result<(), Fault> {
        self.file.read_exact_at(to, address).map_err(|_| Fault { address })
    }

    fn writable(&self) -> &[Range<u64>] {
        &self.writable
    }
}

fn maps() -> Vec<(Range<u64>, String, u64, String)> {
    let text = std::fs::read_to_string("/proc/self/maps").unwrap();
    text.lines()
        .map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (start, end) = fields.next().unwrap().split_once('-').unwrap();
            let number = |text| u64::from_str_radix(text, 16).unwrap();
            let flags = fields.next().unwrap().to_owned();
            let offset = number(fields.next().unwrap());
            let path = fields.nth(2).unwrap_or_default().to_owned();
            (number(start)..number(end), flags, offset, path)
        })
        .collect()
}

pub fn image() -> Image {
    let exe = std::env::current_exe().unwrap();
    let maps = maps();
    // A position-independent program is linked to be at zero.
    let bias = maps.iter().find(|(_, _, offset, path)| *offset == 0 && Path::new(path) == exe);
    let bias = bias.unwrap().0.start;
    let writable = maps.iter().filter(|(_, flags, ..)| flags.starts_with("rw-p"));
    let writable = writable.map(|(range, ..)| range.clone()).collect();
    let file = File::open("/proc/self/mem").unwrap();
    Image {
        memory: Box::new(Own { file, writable }),
        bias,
        threads: Vec::new(),
        pid: std::process::id(),
        taken_ns: crate::sys::clock::monotonic_ns(),
        frozen_ns: 0,
        origin: Origin::default(),
    }
}

pub fn layouts() -> MutexGuard<'static, Dwarf> {
    static LAYOUTS: OnceLock<Mutex<Dwarf>> = OnceLock::new();
    let layouts =
        LAYOUTS.get_or_init(|| Mutex::new(Dwarf::open(&std::env::current_exe().unwrap()).unwrap()));
    layouts.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
