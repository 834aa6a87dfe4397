//! Query parameters: each known, given once, and of the right form.

use std::borrow::Cow;
use std::str::FromStr;

use axum::extract::Query;
use axum::http::Uri;

use crate::render::select::Cursor;
use crate::serve::problem::Problem;

/// The parameters of a request.
#[derive(Debug)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Takes only `known` names: a typing error must not widen an answer.
    pub fn parse(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let expected = || match known {
            [] => "no parameters".to_owned(),
            known => format!("the parameters {}", known.join(", ")),
        };
        let Ok(Query(given)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
            return Err(Problem::bad("the query cannot be read", expected()));
        };
        for (index, (name, _)) in given.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                return Err(Problem::bad(
                    format!("the parameter `{}` is not known", shown(name)),
                    expected(),
                ));
            }
            if given[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(Problem::bad(
                    format!("the parameter `{name}` is given twice"),
                    "it once",
                ));
            }
        }
        Ok(Self(given))
    }

    /// A value; an empty one, as forms send it, is none.
    pub fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.0.iter().find(|(given, _)| given == name)?;
        (!value.is_empty()).then_some(value)
    }

    /// A value that `parse` understands, or `default` if it is not given.
    pub fn choice<T: Default>(
        &self,
        name: &str,
        words: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Problem> {
        let Some(value) = self.get(name) else { return Ok(T::default()) };
        parse(value)
            .ok_or_else(|| Problem::bad(format!("{name}={} makes no sense", shown(value)), words))
    }

    /// `limit=`: at least one row; without it all rows.
    pub fn limit(&self) -> Result<usize, Problem> {
        let Some(value) = self.get("limit") else { return Ok(usize::MAX) };
        match value.parse() {
            Ok(limit) if limit > 0 => Ok(limit),
            _ => Err(Problem::bad(
                format!("limit={} makes no sense", shown(value)),
                "a number of rows from 1 on",
            )),
        }
    }

    /// `cursor=` for an order.
    pub fn cursor(&self, sort: u8) -> Result<Option<Cursor>, Problem> {
        let Some(value) = self.get("cursor") else { return Ok(None) };
        match value.parse::<Cursor>() {
            Ok(cursor) if cursor.sort == sort => Ok(Some(cursor)),
            _ => Err(Problem::bad(
                "this cursor does not belong to this request",
                "the next_cursor of an answer to the same group and sort",
            )),
        }
    }
}

/// An id of a path.
pub fn id<T: FromStr>(text: &str, what: &str) -> Result<T, Problem> {
    text.parse().map_err(|_| {
        Problem::bad(format!("`{}` is no id", shown(text)), format!("the number of a {what}"))
    })
}

/// What a client sent, short enough to repeat.
pub fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}...", &text[..end]).into(),
        None => text.into(),
    }
}
