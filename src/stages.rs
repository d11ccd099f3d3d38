//! CPU time by the stages of a test: where the time goes. Costs nothing unless [`start`] was called.

use crate::backend::Level;
use crate::clock::{cpu_time, thread_time};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::time::Duration;

/// What the time of a case is spent on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Decoding, growing and solving.
    Generate,
    /// With the reference in f64 on what it tries.
    Search,
    /// In f64 on the data of other forms, and in the declared types.
    Reference,
    Bounds,
    Export,
    /// Saying a case otherwise.
    Rewrite,
    Compile(&'static str, Level),
    /// Also giving back what was compiled.
    Run(&'static str, Level),
    /// Threads that backends have started: those of rten compute, and look for work for a while after.
    Threads,
    Judge,
    /// What is done once a finding is made.
    Finding,
    /// Everything that no stage was named for.
    Rest,
}

/// CPU time by stage: of the form in which cases were made, and of their other forms.
pub type Times = BTreeMap<Stage, [Duration; 2]>;

struct Meter {
    stage: Stage,
    other_form: bool,
    since: Duration,
    /// CPU time of all other threads when it was last taken.
    others_since: Duration,
    times: Times,
}

thread_local! {
    static METER: RefCell<Option<Meter>> = const { RefCell::new(None) };
}

impl Stage {
    /// Whether it is the work of a backend.
    pub fn is_backend(self) -> bool {
        matches!(self, Stage::Compile(..) | Stage::Run(..) | Stage::Threads)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(match self {
            Stage::Generate => "decoding, growing, solving",
            Stage::Search => "input search",
            Stage::Reference => "reference",
            Stage::Bounds => "error bounds",
            Stage::Export => "export",
            Stage::Rewrite => "saying it otherwise",
            Stage::Compile(backend, level) => return f.pad(&format!("{backend} {level}: compiling")),
            Stage::Run(backend, level) => return f.pad(&format!("{backend} {level}: running")),
            Stage::Threads => "threads of backends",
            Stage::Judge => "judging",
            Stage::Finding => "explaining findings",
            Stage::Rest => "the rest",
        })
    }
}

/// Starts to count the time of this thread's stages.
pub fn start() {
    let meter = Meter {
        stage: Stage::Rest,
        other_form: false,
        since: thread_time(),
        others_since: others(),
        times: Times::new(),
    };
    METER.set(Some(meter));
}

/// What was counted since the last call, or since [`start`].
pub fn take() -> Times {
    with_meter(|meter| {
        meter.charge();
        let others = others();
        meter.times.entry(Stage::Threads).or_default()[0] += others.saturating_sub(meter.others_since);
        meter.others_since = others;
        mem::take(&mut meter.times)
    })
    .unwrap_or_default()
}

/// Counts the time of `work` for a stage, without what stages within it take.
pub fn stage<T>(stage: Stage, work: impl FnOnce() -> T) -> T {
    let outer = with_meter(|meter| {
        meter.charge();
        mem::replace(&mut meter.stage, stage)
    });
    let result = work();
    if let Some(outer) = outer {
        with_meter(|meter| {
            meter.charge();
            meter.stage = outer;
        });
    }
    result
}

/// Counts the time of `work` for another form of a case than the first.
pub fn other_form<T>(work: impl FnOnce() -> T) -> T {
    let set = |other| {
        with_meter(|meter| {
            meter.charge();
            mem::replace(&mut meter.other_form, other)
        })
    };
    let outer = set(true);
    let result = work();
    set(outer.unwrap_or_default());
    result
}

fn with_meter<T>(change: impl FnOnce(&mut Meter) -> T) -> Option<T> {
    METER.with_borrow_mut(|meter| meter.as_mut().map(change))
}

/// CPU time of the other threads of this process, all of which are backends'.
fn others() -> Duration {
    cpu_time().saturating_sub(thread_time())
}

impl Meter {
    fn charge(&mut self) {
        let now = thread_time();
        self.times.entry(self.stage).or_default()[usize::from(self.other_form)] += now - self.since;
        self.since = now;
    }
}
