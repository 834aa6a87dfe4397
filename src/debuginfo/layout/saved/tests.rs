//! Bodies of layout files as nobody would write them.

use proptest::prelude::*;

use super::super::{Layouts as _, TypeId};
use super::Saved;
use super::bytes::put;

/// A body of these words and of types with records of these lengths, which
/// need not be those of the records that follow.
fn body(words: &[&str], lengths: &[usize], records: &[u8]) -> Vec<u8> {
    let mut body = vec![2];
    put(&mut body, words.len() as u128);
    for word in words {
        put(&mut body, word.len() as u128);
        body.extend_from_slice(word.as_bytes());
    }
    put(&mut body, lengths.len() as u128);
    lengths.iter().for_each(|&length| put(&mut body, length as u128));
    body.extend_from_slice(records);
    // No tasks, vtables, futures; no context.
    body.extend_from_slice(&[0; 4]);
    body
}

/// A type without a shape whose name is the first word so many times.
fn record(times: usize) -> Vec<u8> {
    let mut record = vec![0];
    put(&mut record, times as u128);
    record.resize(record.len() + times, 0);
    record.push(0);
    record
}

fn read(body: Vec<u8>) -> crate::error::Result<Saved> {
    Saved::from_body(body, "key".to_owned())
}

#[test]
fn a_record_ends_where_the_next_begins() {
    let one = record(3);
    let mut saved = read(body(&["ab"], &[one.len()], &one)).unwrap();
    assert_eq!(&*saved.ty(TypeId(0)).unwrap().name, "ababab");
    // Types that share one record, which is in the place of what follows.
    read(body(&["ab"], &[0, 0, 0], &one)).unwrap_err();
    read(body(&["ab"], &[one.len(), 0], &one)).unwrap_err();
    read(body(&["ab"], &[2, one.len() - 2], &one)).unwrap_err();
}

#[test]
fn words_do_not_make_more_than_a_file_is_worth() {
    let word = "x".repeat(1 << 20);
    let one = record(300);
    read(body(&[&word], &[one.len()], &one)).unwrap_err();
    // Each alone would do.
    let one = record(30);
    let records = one.repeat(10);
    read(body(&[&word], &[one.len(); 10], &records)).unwrap_err();
    // Nor one name, whatever the others are.
    let one = record(2);
    let mut saved = read(body(&[&word], &[one.len()], &one)).unwrap();
    saved.ty(TypeId(0)).unwrap_err();
}

proptest! {
    #[test]
    fn records_of_any_lengths_are_read_or_refused(
        times in prop::collection::vec(0_usize..20, 0..20),
        lengths in prop::collection::vec(0_usize..30, 0..20),
        more in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut records: Vec<u8> = times.into_iter().flat_map(record).collect();
        records.extend(more);
        if let Ok(mut saved) = read(body(&["ab", "c"], &lengths, &records)) {
            for number in 0..lengths.len() {
                let _ = saved.ty(TypeId(number as u32));
            }
        }
    }
}
