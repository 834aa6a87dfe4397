//! Pages that fit together though they come from different snapshots.

use std::fmt;
use std::str::FromStr;

/// The place after the last row of a page: the row's sort key and id. A row
/// that comes or goes between two pages shifts no other row, as it would with
/// an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Which order it belongs to.
    pub sort: u8,
    /// Ascending sort key.
    pub key: u64,
    /// Ascending among equal keys.
    pub id: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}{:016x}{:016x}", self.sort, self.key, self.id)
    }
}

impl FromStr for Cursor {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() != 34 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(());
        }
        let number =
            |range: std::ops::Range<usize>| u64::from_str_radix(&text[range], 16).map_err(|_| ());
        Ok(Self { sort: number(0..2)? as u8, key: number(2..18)?, id: number(18..34)? })
    }
}

/// Rows chosen for one page.
#[derive(Debug)]
pub struct Page {
    /// Rows that match, on all pages.
    pub matched: u64,
    /// Indices of this page's rows, in order.
    pub rows: Vec<usize>,
    /// Where the next page begins.
    pub next: Option<Cursor>,
}

impl Page {
    /// The first `limit` of `rows` behind `after`, in the order of (key, id).
    pub fn cut(
        rows: impl Iterator<Item = (u64, u64, usize)>,
        sort: u8,
        after: Option<Cursor>,
        limit: usize,
    ) -> Self {
        let mut matched = 0;
        let mut behind: Vec<(u64, u64, usize)> = rows
            .inspect(|_| matched += 1)
            .filter(|&(key, id, _)| after.is_none_or(|after| (key, id) > (after.key, after.id)))
            .collect();
        if behind.len() > limit {
            // Only the page has to be in order, not the 100,000 rows behind it.
            behind.select_nth_unstable(limit);
        }
        let more = behind.len() > limit;
        behind.truncate(limit);
        behind.sort_unstable();
        let next = behind.last().filter(|_| more).map(|&(key, id, _)| Cursor { sort, key, id });
        Self { matched, rows: behind.into_iter().map(|(_, _, index)| index).collect(), next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cover_all_rows_once_though_rows_come_and_go() {
        let mut rows: Vec<(u64, u64, usize)> =
            (0..1000).map(|n| (n * 7919 % 50, n, n as usize)).collect();
        let mut seen = Vec::new();
        let mut after = None;
        for turn in 0.. {
            let page = Page::cut(rows.iter().copied(), 3, after, 64);
            seen.extend(page.rows);
            // Rows of earlier pages vanish, as tasks do.
            rows.retain(|&(_, id, _)| !seen.contains(&(id as usize)) || id % 2 == turn % 2);
            match page.next {
                Some(next) => after = Some(next.to_string().parse().unwrap()),
                None => break,
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..1000).collect::<Vec<_>>());
    }

    #[test]
    fn an_exact_last_page_has_no_next() {
        let page = Page::cut((0..10).map(|n| (0, n, n as usize)), 0, None, 10);
        assert_eq!((page.rows.len(), page.next), (10, None));
    }

    #[test]
    fn only_our_cursors_are_taken() {
        for text in [
            "",
            "zz",
            "00",
            "é0000000000000000000000000000000",
            "+1000000000000000000000000000000001",
        ] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
    }
}
