//! Counts gRPC messages by their five-byte prefix: one flag byte and a
//! big-endian length, then that many bytes (gRPC over HTTP/2, "Requests",
//! Length-Prefixed-Message).

/// Finds the ends of messages in a stream of chunks cut anywhere. It keeps
/// twelve bytes, whatever length a peer announces.
#[derive(Clone, Debug, Default)]
pub(crate) struct FrameCounter {
    /// Of the message, as far as its prefix was seen.
    length: u32,
    compressed: bool,
    /// Bytes of the prefix seen; 5 while inside a payload.
    seen: u8,
    /// Payload bytes still to come.
    left: u32,
}

impl FrameCounter {
    /// Takes the next chunk and calls `ended` with the payload length of each
    /// message that ends in it, and whether it is compressed. Returns how many
    /// those are.
    pub(crate) fn feed(&mut self, mut chunk: &[u8], mut ended: impl FnMut(u32, bool)) -> u64 {
        let mut messages = 0;
        while !chunk.is_empty() {
            if self.seen < 5 {
                chunk = self.prefix(chunk);
                if self.seen < 5 {
                    break;
                }
                self.left = self.length;
            }
            let take = chunk.len().min(self.left as usize);
            self.left -= take as u32;
            chunk = &chunk[take..];
            if self.left == 0 {
                self.seen = 0;
                messages += 1;
                ended(self.length, self.compressed);
            }
        }
        messages
    }

    /// Takes what there is of the prefix, which seldom is cut.
    #[inline]
    fn prefix<'a>(&mut self, chunk: &'a [u8]) -> &'a [u8] {
        if self.seen == 0
            && let Some((&[flag, a, b, c, d], rest)) = chunk.split_first_chunk()
        {
            (self.compressed, self.length) = (flag != 0, u32::from_be_bytes([a, b, c, d]));
            self.seen = 5;
            return rest;
        }
        let (piece, rest) = chunk.split_at(chunk.len().min(5 - usize::from(self.seen)));
        for &byte in piece {
            match self.seen {
                0 => self.compressed = byte != 0,
                _ => self.length = self.length << 8 | u32::from(byte),
            }
            self.seen += 1;
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::FrameCounter;
    use proptest::prelude::*;

    fn encode(lengths: &[u16]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &length in lengths {
            bytes.push(0);
            bytes.extend(u32::from(length).to_be_bytes());
            bytes.resize(bytes.len() + usize::from(length), 7);
        }
        bytes
    }

    proptest! {
        #[test]
        fn any_chunking_finds_the_same_messages(
            lengths in prop::collection::vec(0u16..600, 0..20),
            cuts in prop::collection::vec(0usize..8_000, 0..40),
        ) {
            let bytes = encode(&lengths);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let mut counter = FrameCounter::default();
            let mut found = Vec::new();
            let mut counted = 0;
            for pair in cuts.windows(2) {
                counted += counter.feed(&bytes[pair[0]..pair[1]], |length, _| found.push(length));
            }
            prop_assert_eq!(counted as usize, lengths.len());
            prop_assert_eq!(found, lengths.iter().map(|&l| u32::from(l)).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_taken(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..50)) {
            let mut counter = FrameCounter::default();
            for chunk in chunks {
                let most = chunk.len() as u64 / 5 + 1;
                prop_assert!(counter.feed(&chunk, |_, _| ()) <= most);
            }
        }
    }

    #[test]
    fn an_absurd_length_is_only_waited_for() {
        let mut counter = FrameCounter::default();
        assert_eq!(counter.feed(&[0, 255, 255, 255, 255], |_, _| ()), 0);
        assert_eq!(counter.feed(&[0; 4096], |_, _| ()), 0);
        assert_eq!(counter.left, u32::MAX - 4096);
        assert!(size_of::<FrameCounter>() <= 16);
    }

    #[test]
    fn an_empty_message_is_one() {
        let mut counter = FrameCounter::default();
        let mut ends = Vec::new();
        assert_eq!(counter.feed(&[0, 0, 0, 0, 0, 0, 0], |length, _| ends.push(length)), 1);
        assert_eq!(counter.feed(&[0, 0, 1], |length, _| ends.push(length)), 0);
        assert_eq!(counter.feed(&[9], |length, _| ends.push(length)), 1);
        assert_eq!(ends, [0, 1]);
    }
}
