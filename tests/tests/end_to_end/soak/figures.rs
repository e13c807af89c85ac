//! What was measured, for the table at the end.

use std::fmt::Display;
use std::sync::{Arc, Mutex};

/// The rows of the table.
#[derive(Clone, Default)]
pub struct Figures(Arc<Mutex<Vec<(String, String)>>>);

impl Figures {
    /// Adds a row.
    pub fn add(&self, what: impl Display, value: impl Display) {
        self.0.lock().unwrap().push((what.to_string(), value.to_string()));
    }

    /// Prints the table, the rows of a test next to each other: they begin with the same words.
    pub fn print(&self, target: &str) {
        let mut rows = self.0.lock().unwrap().clone();
        rows.sort_by(|(a, _), (b, _)| a.split(':').next().cmp(&b.split(':').next()));
        for (what, value) in rows {
            println!("{target:8} {what:60} {value}");
        }
    }
}
