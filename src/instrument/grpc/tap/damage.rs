//! Any bytes as the two directions of a connection; what `fuzz/` runs.

use super::reader::FrameReader;
use crate::model::Side;
use crate::registry::clock;
use crate::registry::wire::Wire;
use crate::registry::wire::frame::Frame;

/// Reads the bytes as what a client and what a server may have sent, whole and
/// in pieces, and adds them up on both ends.
///
/// # Panics
/// If a reader's word depends on how the bytes are cut.
pub fn any_bytes(bytes: &[u8]) {
    let Some((&first, bytes)) = bytes.split_first() else { return };
    for make in [FrameReader::client, FrameReader::server] {
        let (whole, pieces) = (read(make(), bytes, usize::MAX), read(make(), bytes, piece(first)));
        assert_eq!(whole, pieces);
    }
    for side in [Side::Server, Side::Client] {
        let wire = Wire::new(side);
        let (mut incoming, mut outgoing) = match side {
            Side::Server => (FrameReader::client(), FrameReader::server()),
            Side::Client => (FrameReader::server(), FrameReader::client()),
        };
        for (at, piece) in bytes.chunks(piece(first)).enumerate() {
            let mut writer = wire.writer(clock::now());
            let read = if at % 2 == usize::from(first >> 7) {
                incoming.feed(piece, &mut |frame| writer.received(frame))
            } else {
                outgoing.feed(piece, &mut |frame| writer.sent(frame))
            };
            if read.is_err() {
                writer.lost();
            }
            writer.finish();
            wire.called(None);
            wire.read_all(true);
            wire.calm();
        }
        wire.gone();
        _ = wire.http2(clock::now());
    }
}

fn piece(first: u8) -> usize {
    usize::from(first & 0x7f) + 1
}

/// What was read, DATA summed up, and whether the place was lost.
fn read(mut reader: FrameReader, bytes: &[u8], piece: usize) -> (Vec<Frame>, u64, bool) {
    let (mut frames, mut data, mut lost) = (Vec::new(), 0, false);
    for piece in bytes.chunks(piece.min(bytes.len().max(1))) {
        lost |= reader
            .feed(piece, &mut |frame| match frame {
                Frame::Data { bytes, end, id } => {
                    data += u64::from(bytes);
                    if end {
                        frames.push(Frame::Data { id, bytes: 0, end });
                    }
                }
                frame => frames.push(frame),
            })
            .is_err();
    }
    (frames, data, lost)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn the_corpus_is_read_or_refused() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/frames");
        let mut files = 0;
        for entry in fs::read_dir(corpus).unwrap() {
            super::any_bytes(&fs::read(entry.unwrap().path()).unwrap());
            files += 1;
        }
        assert!(files >= 3, "only {files} files");
    }
}
