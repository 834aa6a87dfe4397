//! Numbers and texts in a row of bytes.

use crate::error::{Error, ErrorKind, Result};

/// Appends a number as LEB128.
pub(super) fn put(into: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// Reads from the front; an end that comes too early is an error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn byte(&mut self) -> Result<u8> {
        let (&first, rest) = self.0.split_first().ok_or_else(damaged)?;
        self.0 = rest;
        Ok(first)
    }

    pub(super) fn wide(&mut self) -> Result<u128> {
        let mut value = 0_u128;
        for shift in (0..128).step_by(7) {
            let byte = self.byte()?;
            let bits = u128::from(byte & 0x7f);
            // The last byte has room for two bits only.
            if shift + 7 > 128 && bits >> (128 - shift) != 0 {
                return Err(damaged());
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(damaged())
    }

    pub(super) fn long(&mut self) -> Result<u64> {
        self.wide()?.try_into().map_err(|_| damaged())
    }

    pub(super) fn short(&mut self) -> Result<u32> {
        self.wide()?.try_into().map_err(|_| damaged())
    }

    /// How many things follow, each of `least` bytes or more: so a count that
    /// was made up cannot make anybody reserve memory for it.
    pub(super) fn count(&mut self, least: usize) -> Result<usize> {
        let count = self.short()? as usize;
        if count.saturating_mul(least) > self.0.len() {
            return Err(damaged());
        }
        Ok(count)
    }

    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or_else(damaged)?;
        self.0 = rest;
        Ok(taken)
    }
}

pub(super) fn damaged() -> Error {
    Error::new(ErrorKind::Malformed, "a damaged layout file")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn numbers_come_back(values in proptest::collection::vec(any::<u128>(), 0..20)) {
            let mut bytes = Vec::new();
            for &value in &values {
                put(&mut bytes, value >> (value % 128));
            }
            let mut cursor = Cursor(&bytes);
            for &value in &values {
                prop_assert_eq!(cursor.wide().unwrap(), value >> (value % 128));
            }
            prop_assert!(cursor.0.is_empty());
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut cursor = Cursor(&bytes);
            while cursor.wide().is_ok() {}
        }
    }

    #[test]
    fn a_number_too_wide_is_refused() {
        let mut bytes = vec![0xff; 18];
        bytes.push(0x03);
        assert_eq!(Cursor(&bytes).wide().unwrap(), u128::MAX);
        bytes[18] = 0x04;
        assert!(Cursor(&bytes).wide().is_err());
        assert!(Cursor(&[0x80, 0x80]).wide().is_err());
        assert!(Cursor(&[0xff, 0xff, 0xff, 0xff, 0x10]).short().is_err());
    }

    #[test]
    fn a_count_beyond_the_end_is_refused() {
        assert!(Cursor(&[5, 0, 0, 0]).count(1).is_err());
        assert_eq!(Cursor(&[3, 0, 0, 0]).count(1).unwrap(), 3);
        assert!(Cursor(&[3, 0, 0, 0]).count(2).is_err());
    }
}
