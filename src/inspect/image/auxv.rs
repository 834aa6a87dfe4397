//! The auxiliary vector: what the kernel tells a program at its start, as
//! pairs of words; see getauxval(3).

/// `AT_ENTRY`: where the executable's entry point is.
pub fn entry(raw: &[u8]) -> Option<u64> {
    find(raw, 9)
}

fn find(raw: &[u8], wanted: u64) -> Option<u64> {
    raw.as_chunks::<16>().0.iter().find_map(|pair| {
        let word = |at: usize| Some(u64::from_le_bytes(pair.get(at..at + 8)?.try_into().ok()?));
        if word(0)? == wanted { word(8) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_entry_is_what_libc_says() {
        let raw = std::fs::read("/proc/self/auxv").unwrap();
        assert_eq!(entry(&raw), Some(crate::sys::auxv::own_entry()));
        assert_eq!(entry(&raw[..8]), None);
    }
}
