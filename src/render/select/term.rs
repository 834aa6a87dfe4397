//! The filter language: words that must all match.
//!
//! `recv state:idle age:>10s -method:/health` A term is a word, or
//! `key:value`, or with `-` before it what must not match. Values with blanks
//! are quoted: `place:"my file.rs"`. Numbers and durations may follow `>`,
//! `>=`, `<`, `<=` or `=`.

/// Bytes of a filter. A person types less; a longer one is a mistake.
const MAX_BYTES: usize = 1_000;
/// Terms of a filter: each costs a pass over every row.
const MAX_TERMS: usize = 32;

type Test<T> = Box<dyn Fn(&T) -> bool + Send + Sync>;

/// A parsed filter over rows of one kind.
pub struct Filter<T> {
    terms: Vec<(bool, Test<T>)>,
}

impl<T> Filter<T> {
    /// Parses; `compile` turns one term into a test or says what is wrong.
    ///
    /// # Errors
    /// A sentence for the person who wrote the filter.
    pub fn parse(
        text: &str,
        compile: impl Fn(Option<&str>, &str) -> Result<Test<T>, String>,
    ) -> Result<Self, String> {
        Self::of_words(split(text)?, compile)
    }

    /// The same of words that [`split`] made, or of some of them.
    pub fn of_words(
        words: Vec<String>,
        compile: impl Fn(Option<&str>, &str) -> Result<Test<T>, String>,
    ) -> Result<Self, String> {
        let mut terms = Vec::new();
        for word in words {
            let (wanted, word) = match word.strip_prefix('-') {
                Some(rest) => (false, rest.to_owned()),
                None => (true, word),
            };
            let test = match word.split_once(':') {
                Some((key, value)) if is_key(key) => compile(Some(key), value)?,
                _ => compile(None, &word)?,
            };
            terms.push((wanted, test));
        }
        Ok(Self { terms })
    }

    /// It has no term: everything matches.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// All terms match.
    pub fn matches(&self, row: &T) -> bool {
        self.terms.iter().all(|(wanted, test)| test(row) == *wanted)
    }
}

/// `src/feed.rs:112` and `mpsc::recv` are words, not keys.
fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}

/// The words of a filter.
///
/// # Errors
/// A sentence: too long, too many, or a quotation mark is not closed.
pub fn split(text: &str) -> Result<Vec<String>, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("the filter has {} bytes; {MAX_BYTES} are allowed", text.len()));
    }
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    if quoted {
        return Err("a quotation mark is not closed".to_owned());
    }
    if !word.is_empty() {
        words.push(word);
    }
    if words.len() > MAX_TERMS {
        return Err(format!("the filter has more than {MAX_TERMS} terms"));
    }
    Ok(words)
}

/// Case does not matter, within ASCII.
pub fn contains(text: &str, part: &str) -> bool {
    part.is_empty()
        || text
            .as_bytes()
            .windows(part.len())
            .any(|window| window.eq_ignore_ascii_case(part.as_bytes()))
}

/// A comparison with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compare {
    order: Order,
    with: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Less,
    AtMost,
    Equal,
    AtLeast,
    More,
}

impl Compare {
    /// `>5`, `<=7`, `9`.
    pub fn number(text: &str) -> Result<Self, String> {
        let (order, rest) = order(text);
        let with =
            rest.parse().map_err(|_| format!("`{text}` is no number; write for example >5"))?;
        Ok(Self { order, with })
    }

    /// `>10s`, `<=1.5ms`; in nanoseconds.
    pub fn duration(text: &str) -> Result<Self, String> {
        let (order, rest) = order(text);
        let with = duration_ns(rest).ok_or_else(|| {
            format!("`{text}` is no duration; write for example >10s, >500ms or <2h")
        })?;
        Ok(Self { order, with })
    }

    pub fn holds(self, value: u64) -> bool {
        match self.order {
            Order::Less => value < self.with,
            Order::AtMost => value <= self.with,
            Order::Equal => value == self.with,
            Order::AtLeast => value >= self.with,
            Order::More => value > self.with,
        }
    }
}

fn order(text: &str) -> (Order, &str) {
    for (sign, order) in [
        (">=", Order::AtLeast),
        ("<=", Order::AtMost),
        (">", Order::More),
        ("<", Order::Less),
        ("=", Order::Equal),
    ] {
        if let Some(rest) = text.strip_prefix(sign) {
            return (order, rest);
        }
    }
    (Order::Equal, text)
}

fn duration_ns(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        "d" => 86_400e9,
        _ => return None,
    };
    let ns = number.parse::<f64>().ok()? * unit;
    // A float beyond the range becomes the largest number, which is meant.
    ns.is_finite().then_some(ns.round() as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations() {
        for (text, ns) in [
            ("10s", Some(10_000_000_000)),
            ("1.5ms", Some(1_500_000)),
            ("2h", Some(7_200_000_000_000)),
            ("1d", Some(86_400_000_000_000)),
            ("7µs", Some(7_000)),
            ("10", None),
            ("s", None),
            ("1.2.3s", None),
            ("-1s", None),
            ("nans", None),
            ("10 s", None),
        ] {
            assert_eq!(duration_ns(text), ns, "{text}");
        }
    }

    #[test]
    fn comparisons() {
        for (text, below, at, above) in [
            (">5", false, false, true),
            (">=5", false, true, true),
            ("5", false, true, false),
            ("=5", false, true, false),
            ("<=5", true, true, false),
            ("<5", true, false, false),
        ] {
            let compare = Compare::number(text).unwrap();
            assert_eq!(
                (compare.holds(4), compare.holds(5), compare.holds(6)),
                (below, at, above),
                "{text}"
            );
        }
    }

    #[test]
    fn words_and_keys() {
        let seen = std::cell::RefCell::new(Vec::new());
        let filter = Filter::<()>::parse(
            r#"Recv state:idle -src/a.rs:7 place:"my file" mpsc::recv"#,
            |key, value| {
                seen.borrow_mut().push((key.map(str::to_owned), value.to_owned()));
                Ok(Box::new(|()| true))
            },
        );
        let expected = [
            (None, "Recv"),
            (Some("state"), "idle"),
            (None, "src/a.rs:7"),
            (Some("place"), "my file"),
            (Some("mpsc"), ":recv"),
        ];
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(key, value)| (key.map(str::to_owned), value.to_owned()))
            .collect();
        assert_eq!(*seen.borrow(), expected);
        assert!(!filter.unwrap().matches(&()), "the third term must not match");
    }

    proptest! {
        #[test]
        fn any_text_parses_or_says_why(text in ".{0,200}") {
            let parsed = Filter::<()>::parse(&text, |_, value| match Compare::duration(value) {
                Ok(compare) => Ok(Box::new(move |()| compare.holds(1))),
                Err(error) => Err(error),
            });
            match parsed {
                Ok(filter) => { filter.matches(&()); }
                Err(error) => prop_assert!(!error.is_empty()),
            }
        }
    }
}
