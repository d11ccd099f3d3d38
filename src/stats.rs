//! One table of counters, printed by one loop.

use crate::spec::Skip;
use std::collections::BTreeMap;
use std::fmt;

/// What happened to cases, records, elements and runs, by name.
#[derive(Clone, Default, Debug)]
pub struct Stats {
    counters: BTreeMap<(&'static str, String), u64>,
}

impl Stats {
    pub fn add(&mut self, group: &'static str, name: impl fmt::Display, count: u64) {
        if count > 0 {
            *self.counters.entry((group, name.to_string())).or_insert(0) += count;
        }
    }

    pub fn count(&mut self, group: &'static str, name: impl fmt::Display) {
        self.add(group, name, 1);
    }

    pub fn record<T>(&mut self, fate: &Result<T, Skip>) {
        match fate {
            Ok(_) => self.count("records", "kept"),
            Err(skip) => self.count("records", format_args!("{skip:?}")),
        }
    }

    pub fn get(&self, group: &'static str, name: &str) -> u64 {
        self.counters.get(&(group, name.to_owned())).copied().unwrap_or(0)
    }

    /// The sum of a group.
    pub fn total(&self, group: &str) -> u64 {
        self.counters.iter().filter(|((g, _), _)| *g == group).map(|(_, count)| count).sum()
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        for ((group, name), count) in &self.counters {
            let share = 100.0 * *count as f64 / self.total(group) as f64;
            writeln!(f, "{group:10} {name:28} {count:>12} {share:6.2} %")?;
        }
        Ok(())
    }
}
