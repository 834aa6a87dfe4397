//! Spawn places: a task has a pointer to where it was spawned; who reads tasks
//! gives each such place its name once.

use std::collections::HashMap;
use std::panic;
use std::sync::{Arc, Mutex, PoisonError};

use crate::model::Location;

/// The names of the places that were asked for. There are no more of them than
/// the program has calls of `spawn`.
#[derive(Debug, Default)]
pub struct Places {
    names: Mutex<HashMap<usize, Arc<Location>>>,
}

impl Places {
    /// To name some places.
    pub fn names(&self) -> Names<'_> {
        Names { places: self, last: None }
    }
}

/// Gives places their names.
pub struct Names<'a> {
    places: &'a Places,
    /// Tasks come in rows from one place.
    last: Option<(usize, Arc<Location>)>,
}

impl Names<'_> {
    /// A place's name, which all who ask for it share.
    pub fn name(&mut self, place: &'static panic::Location<'static>) -> Arc<Location> {
        let key = std::ptr::from_ref(place) as usize;
        if let Some((last, name)) = &self.last
            && *last == key
        {
            return name.clone();
        }
        let mut names = self.places.names.lock().unwrap_or_else(PoisonError::into_inner);
        let name = names.entry(key).or_insert_with(|| {
            Arc::new(Location {
                file: place.file().into(),
                line: place.line(),
                column: place.column(),
            })
        });
        self.last = Some((key, name.clone()));
        name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn here() -> &'static panic::Location<'static> {
        panic::Location::caller()
    }

    #[test]
    fn a_place_keeps_its_name() {
        let places = Places::default();
        let (one, two) = (here(), here());
        let first = places.names().name(one);
        let second = places.names().name(two);
        assert_ne!(first.column, second.column);
        assert_eq!((&*first.file, first.line), (file!(), one.line()));
        let mut names = places.names();
        for _ in 0..2 {
            assert!(Arc::ptr_eq(&names.name(one), &first));
            assert!(Arc::ptr_eq(&names.name(two), &second));
            assert!(Arc::ptr_eq(&names.name(two), &second));
        }
    }
}
