//! `scripts/campaign` with a fuzzer that only seems to fuzz, and the real triage.

use crate::{Folder, PROGRAM, text};
use graphsmith::input;
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/campaign");
const HOURS: f64 = 0.0015;

/// Writes an artifact, an input in the folder of a job, and the lines of libFuzzer's fork mode, until it is told to stop.
const FUZZER: &str = r##"#!/bin/sh
for argument; do case $argument in -artifact_prefix=*) artifacts=${argument#*=} ;; esac; done
job=$TMPDIR/libFuzzerTemp.FuzzWithFork$$.dir
mkdir -p "$job/C1"
echo "new $$" >"$job/C1/new-$$"
cp "$(dirname "$0")/artifact" "$artifacts/crash-1"
cases=0
until [ -s "$job/STOP" ]; do
    cases=$((cases + 100))
    echo "#$cases: cov: 10 ft: 20 corp: 3 exec/s: 100 oom/timeout/crash: 0/0/0 time: 1s job: 1 dft_time: 0" >&2
    sleep 0.1
done
echo $cases >"$(dirname "$0")/cases"
"##;

fn program(folder: &Folder, name: &str, content: &str) -> String {
    let path = folder.file(name, content);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn campaign(fuzzer: &str, hours: &str, out: &str) -> Command {
    let mut command = Command::new(SCRIPT);
    command.args([hours, "--out", out, "--fuzzer", fuzzer, "--graphsmith", PROGRAM]);
    command.args(["--no-programs", "--python", "/nonexistent"]).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn run(mut command: Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap()
}

/// The processes that live and were started by a campaign in this folder: all have a folder in it for temporary files.
fn processes(out: &str) -> Vec<String> {
    let of_campaign = |process: &fs::DirEntry| {
        let variables = fs::read(process.path().join("environ")).unwrap_or_default();
        text_of(&variables).contains(&format!("{out}/tmp"))
    };
    let entries = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap());
    let found = entries.filter(of_campaign);
    found.map(|it| text_of(&fs::read(it.path().join("cmdline")).unwrap_or_default())).collect()
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn read(path: &str) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_campaign_that_is_killed_goes_on() {
    let folder = Folder::new();
    let out = folder.path("findings");
    let fuzzer = program(&folder, "fuzzer", FUZZER);
    let [artifact, dead, living] = [0, 1, 2].map(|seed| input::random(seed, 1).encode());
    folder.file("artifact", &artifact);
    fs::create_dir_all(format!("{out}/artifacts")).unwrap();
    // The first process lives, but is not the one that had this input at hand.
    fs::write(format!("{out}/artifacts/running-1-0"), &dead).unwrap();
    fs::write(format!("{out}/artifacts/running-{}-0", std::process::id()), &living).unwrap();
    let at_hand = File::open(format!("{out}/artifacts/running-{}-0", std::process::id())).unwrap();
    at_hand.lock().unwrap();

    let mut child = campaign(&fuzzer, &HOURS.to_string(), &out);
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while !Path::new(&format!("{out}/artifacts/crash-1")).exists() {
        assert!(begun.elapsed() < Duration::from_secs(10), "it does not begin");
        sleep(Duration::from_millis(10));
    }
    // Any moment will do.
    let moment = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_micros() % 3000;
    sleep(Duration::from_millis(moment.into()));
    child.kill().unwrap();
    child.wait().unwrap();
    let killed = Instant::now();
    while !processes(&out).is_empty() {
        let left = processes(&out);
        assert!(killed.elapsed() < Duration::from_secs(5), "after {moment} ms: {left:?}");
        sleep(Duration::from_millis(10));
    }
    let before = read(&format!("{out}/campaign.json"));
    assert!(before["seconds"].as_f64().unwrap() < HOURS * 3600.0, "{moment} ms");

    let output = run(campaign(&fuzzer, &HOURS.to_string(), &out));
    let told = format!("after {moment} ms: {}{}", text(&output.stdout), text(&output.stderr));
    assert!(matches!(output.status.code(), Some(0 | 1)), "{told}");
    assert!(text(&output.stdout).ends_with(&format!("bugs: {out}/index.html\n")), "{told}");
    assert!(fs::read_to_string(format!("{out}/index.html")).unwrap().contains("<html"), "{told}");
    let after = read(&format!("{out}/campaign.json"));
    assert!(after["seconds"].as_f64().unwrap() >= HOURS * 3600.0, "{told}");
    let own: u64 = fs::read_to_string(folder.path("cases")).unwrap().trim().parse().unwrap();
    assert_eq!(after["cases"].as_u64().unwrap(), before["cases"].as_u64().unwrap() + own, "{told}");
    // What the killed job had found is in the corpus.
    assert_eq!(fs::read_dir(format!("{out}/corpus")).unwrap().count(), 1, "{told}");
    let state = read(&format!("{out}/state.json"));
    let judged = |bytes: &[u8]| state["inputs"].get(input::digest(bytes)).is_some();
    assert_eq!([&artifact, &dead, &living].map(|it| judged(it)), [true, true, false], "{told}");

    // There is no time left, so that only what is new is sorted.
    drop(at_hand);
    let output = run(campaign("/bin/false", &HOURS.to_string(), &out));
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", text(&output.stderr));
    assert!(read(&format!("{out}/state.json"))["inputs"].get(input::digest(&living)).is_some());
    assert_eq!(read(&format!("{out}/campaign.json")), after);
}

#[test]
fn a_campaign_tells_what_it_cannot_use() {
    let folder = Folder::new();
    let fuzzer = program(&folder, "fuzzer", FUZZER);
    let out = folder.path("findings");
    let fails = |command: Command, parts: &[&str]| {
        let output = run(command);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        let last = errors.lines().last().unwrap();
        assert!(last.starts_with("scripts/campaign: ") && parts.iter().all(|part| last.contains(part)), "{errors}");
        assert!(!errors.contains("Traceback"), "{errors}");
    };
    for hours in ["soon", "nan", "inf", "-1"] {
        fails(campaign(&fuzzer, hours, &out), &[&format!("`{hours}` is no number of hours")]);
    }
    let file = folder.file("file", "");
    fails(campaign(&fuzzer, "1", &format!("{file}/below")), &[&file, "cannot be used"]);
    fails(campaign("/nonexistent", "1", &out), &["/nonexistent is no program"]);
    let mut wrong = campaign(&fuzzer, "1", &out);
    wrong.arg("--option");
    fails(wrong, &["--option"]);
    let broken = program(&folder, "broken", "#!/bin/sh\necho 'no library' >&2\nexit 2\n");
    fails(campaign(&broken, "1", &out), &["ends at once", "no library"]);
    let _taken = {
        let lock = File::create(format!("{out}/lock")).unwrap();
        lock.lock().unwrap();
        lock
    };
    fails(campaign(&fuzzer, "1", &out), &["another campaign", &out]);
}
