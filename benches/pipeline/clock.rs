//! CPU time, for criterion and for tables.

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use graphsmith::clock::cpu_time;
use std::time::Duration;

/// Each thing is timed so often, and the median counts.
const REPETITIONS: usize = 5;

pub struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        cpu_time()
    }

    fn end(&self, start: Duration) -> Duration {
        cpu_time() - start
    }

    fn add(&self, one: &Duration, other: &Duration) -> Duration {
        *one + *other
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

/// The median time that `work` takes on each subject, ascending.
pub fn times<T>(subjects: &[T], work: impl Fn(&T)) -> Vec<Duration> {
    let time = |subject: &T| {
        let mut times = [Duration::ZERO; REPETITIONS];
        for time in &mut times {
            let start = cpu_time();
            work(subject);
            *time = cpu_time() - start;
        }
        times.sort_unstable();
        times[REPETITIONS / 2]
    };
    let mut times: Vec<Duration> = subjects.iter().map(time).collect();
    times.sort_unstable();
    times
}

/// One row: what it is about, then median, p95, p99 and the most, in milliseconds.
pub fn row(name: &str, times: &[Duration]) {
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!("{name:30} {:8.3} {:8.3} {:8.3} {:8.3}", at(50), at(95), at(99), at(100));
}

pub fn heading(name: &str) {
    println!("{name:30} {:>8} {:>8} {:>8} {:>8}", "median", "p95", "p99", "max");
}
