//! Merges of corpora, as `cargo fuzz cmin` makes them: what an input covers must not depend on those before it, nor what is kept
//! on how a folder lists its files.
//!
//! libFuzzer merges in two processes: an outer one that starts inner ones, which run every input once and write down what it
//! covers, in the order of a control file.

use crate::input::digest;
use crate::trace;
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

/// Runs of an input that must all meet a place for it to count: what depends on the order of a hash map or on another
/// thread would make one merge keep what the next one drops.
const RUNS: u8 = 2;
const CONTROL_FILE: &str = "-merge_control_file=";

thread_local! {
    /// All counters that libFuzzer reads, in the inner process of a merge.
    static COUNTERS: RefCell<Option<Vec<&'static [AtomicU8]>>> = const { RefCell::new(None) };
}
/// The control file that is to go at the end of the outer process.
static TEMPORARY: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Whether libFuzzer has started this process to run the inputs of a merge.
pub fn is_inner(mut arguments: impl Iterator<Item = String>) -> bool {
    arguments.any(|argument| argument.starts_with("-merge_inner="))
}

/// From now on each input counts for itself. `counters` are all that libFuzzer reads.
pub fn start(counters: Vec<&'static [AtomicU8]>) {
    COUNTERS.set(Some(counters));
}

/// Runs an input. In a merge it first runs once for nothing, which lets the libraries set up what they need only once; then
/// a place counts that each of several runs from the same state meets, as often as it may be.
pub fn run(mut test: impl FnMut()) {
    test();
    COUNTERS.with_borrow(|counters| {
        let Some(counters) = counters else { return };
        let mut runs: Vec<Vec<u8>> = counters.iter().map(|counters| vec![0; counters.len()]).collect();
        for _ in 0..RUNS {
            counters.iter().copied().flatten().for_each(|counter| counter.store(0, Relaxed));
            trace::rearm();
            test();
            for (counters, runs) in counters.iter().zip(&mut runs) {
                trace::nonzero(counters, |index, _| runs[index] += 1);
            }
        }
        let all = counters.iter().copied().flatten().zip(runs.iter().flatten());
        all.for_each(|(counter, &met)| counter.store(u8::from(met == RUNS), Relaxed));
    });
}

/// Of the outer process of a merge, writes the control file that libFuzzer would write, unless one is given that a merge has
/// begun: libFuzzer leaves inputs of one size in the order of the folder. An argument to be added, if it has no name yet.
pub fn control(arguments: &[String]) -> Option<String> {
    let outer = |argument: &String| argument == "-merge=1" || argument == "-set_cover_merge=1";
    let folders: Vec<&String> = arguments.iter().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let [kept, added @ ..] = &folders[..] else { return None };
    if !arguments.iter().any(outer) || added.is_empty() {
        return None;
    }
    let given = arguments.iter().rev().find_map(|argument| argument.strip_prefix(CONTROL_FILE)).map(PathBuf::from);
    let temporary = || std::env::temp_dir().join(format!("graphsmith-merge-{}.txt", std::process::id()));
    let path = given.clone().unwrap_or_else(temporary);
    if !fs::metadata(&path).is_ok_and(|data| data.len() > 0) {
        let (kept, added) = (inputs([kept.as_ref()]), inputs(added.iter().map(|folder| folder.as_ref())));
        let mut text = format!("{}\n{}\n", kept.len() + added.len(), kept.len());
        kept.iter().chain(&added).for_each(|path| text += &format!("{}\n", path.display()));
        // libFuzzer writes its own then, and says so if it cannot either.
        if kept.len() + added.len() == 0 || fs::write(&path, text).is_err() {
            return None;
        }
    }
    if given.is_some() {
        return None;
    }
    if let Ok(mut temporary) = TEMPORARY.lock() {
        *temporary = Some(path.clone());
    }
    Some(format!("{CONTROL_FILE}{}", path.display()))
}

/// Takes away what [`control`] has made for this process.
pub fn finish() {
    if let Some(path) = TEMPORARY.lock().ok().and_then(|mut temporary| temporary.take()) {
        let _ = fs::remove_file(path);
    }
}

/// The inputs in folders that are not empty: the small ones first, and those of one size by the names that libFuzzer gives them, so
/// that a second merge has the same order.
fn inputs<'a>(folders: impl IntoIterator<Item = &'a Path>) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.into_iter().map(Path::to_owned).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let (path, hidden) = (entry.path(), entry.file_name().as_encoded_bytes().starts_with(b"."));
            match fs::read(&path) {
                Ok(bytes) if !bytes.is_empty() => found.push((bytes.len(), digest(&bytes), path)),
                Err(_) if path.is_dir() && !hidden => open.push(path),
                _ => {}
            }
        }
    }
    found.sort();
    found.into_iter().map(|(_, _, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_depends_on_the_inputs_alone() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| folder.path().join(name));
        fs::create_dir_all(two.join("inner")).unwrap();
        fs::create_dir(&one).unwrap();
        for (path, content) in
            [("one/x", "bbb"), ("two/a", "b"), ("two/inner/c", "a"), ("two/b", "long"), ("two/e", "")]
        {
            fs::write(folder.path().join(path), content).unwrap();
        }
        let control_file = folder.path().join("control");
        let mut arguments = vec!["graph_diff".to_owned(), one.display().to_string(), two.display().to_string()];
        assert_eq!(control(&arguments), None, "that is no merge");
        arguments.extend(["-merge=1".to_owned(), format!("{CONTROL_FILE}{}", control_file.display())]);
        assert_eq!(control(&arguments), None, "the file has a name");
        let text = fs::read_to_string(&control_file).unwrap();
        let expected = ["one/x", "two/inner/c", "two/a", "two/b"].map(|path| folder.path().join(path));
        let expected: String = expected.iter().map(|path| format!("{}\n", path.display())).collect();
        assert_eq!(text, format!("4\n1\n{expected}"), "{} {}", digest(b"a"), digest(b"b"));
        fs::write(&control_file, "begun").unwrap();
        control(&arguments);
        assert_eq!(fs::read_to_string(&control_file).unwrap(), "begun");
        arguments.pop();
        let added = control(&arguments).expect("an argument that names the file");
        let path = PathBuf::from(added.strip_prefix(CONTROL_FILE).unwrap());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        finish();
        assert!(!path.exists());
    }

    #[test]
    fn only_what_every_run_meets_counts() {
        let counters: &'static [AtomicU8] = Vec::from_iter((0..4).map(|_| AtomicU8::new(0))).leak();
        start(vec![counters]);
        let mut count = 0;
        run(|| {
            count += 1;
            counters[usize::from(count == 1)].store(9, Relaxed);
            counters[2].store(count, Relaxed);
            if count == 3 {
                counters[3].store(1, Relaxed);
            }
        });
        COUNTERS.set(None);
        assert_eq!(count, 1 + RUNS);
        assert_eq!(counters.iter().map(|counter| counter.load(Relaxed)).collect::<Vec<_>>(), [1, 0, 1, 0]);
    }
}
