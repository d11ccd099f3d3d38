//! A smaller input of the fuzzer: fewer records, and zero bytes, each of which is the plainest choice.

use super::{Error, Search, Trust};
use crate::case::{self, Case};
use crate::input::{Input, RECORD_BYTES};

impl Search<'_> {
    /// The least input that shows the bug, with its case.
    pub fn least_input(&mut self, input: Input, case: Case) -> Result<(Input, Case), Error> {
        let mut least = (input, case);
        self.fewer_records(&mut least)?;
        for at in 0..RECORD_BYTES {
            self.try_input(&mut least, |input| zero(&mut input.header[at..=at]))?;
        }
        for record in 0..least.0.records.len() {
            self.plainer(&mut least, record, 1, RECORD_BYTES)?;
        }
        self.fewer_records(&mut least)?;
        Ok(least)
    }

    /// Leaves out runs of records, long ones first.
    fn fewer_records(&mut self, least: &mut (Input, Case)) -> Result<(), Error> {
        let mut length = least.0.records.len();
        while length > 0 {
            let mut start = 0;
            while start < least.0.records.len() {
                let end = (start + length).min(least.0.records.len());
                let dropped = self.try_input(least, |input| {
                    input.records.drain(start..end);
                    true
                })?;
                if !dropped {
                    start += length;
                }
            }
            length /= 2;
        }
        Ok(())
    }

    /// Makes bytes of a record zero, as many at once as can be.
    fn plainer(&mut self, least: &mut (Input, Case), record: usize, from: usize, to: usize) -> Result<(), Error> {
        if self.try_input(least, |input| zero(&mut input.records[record][from..to]))? || to - from == 1 {
            return Ok(());
        }
        let middle = from.midpoint(to);
        self.plainer(least, record, from, middle)?;
        self.plainer(least, record, middle, to)
    }

    /// Takes the changed input if it shows the bug and its model has no more operators.
    fn try_input(&mut self, least: &mut (Input, Case), change: impl FnOnce(&mut Input) -> bool) -> Result<bool, Error> {
        let mut input = least.0.clone();
        if !change(&mut input) || self.runs >= self.limit {
            return Ok(false);
        }
        let Ok(case) = Case::new(case::generate(&input))? else { return Ok(false) };
        let larger = case.model.nodes.len() > least.1.model.nodes.len();
        let fits = !larger && self.shows(&case, Trust::Legal) && self.operator_alone(&case)? == self.alone;
        if fits {
            *least = (input, case);
        }
        Ok(fits)
    }
}

/// False where they are zero already.
fn zero(bytes: &mut [u8]) -> bool {
    let changes = bytes.iter().any(|&byte| byte != 0);
    bytes.fill(0);
    changes
}
