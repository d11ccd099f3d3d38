//! `graphsmith triage`.

use crate::{Folder, PROGRAM, fails, print, run, text};
use graphsmith::case;
use graphsmith::input;
use graphsmith::known::Known;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

/// Random inputs as the fuzzer saves them, and other files beside them.
fn artifacts(folder: &Folder, seeds: std::ops::Range<u64>) -> String {
    let runs = folder.path("runs");
    for (seed, kind) in seeds.zip(["crash", "oom", "timeout", "slow-unit"].into_iter().cycle()) {
        let run = format!("{runs}/run{}", seed % 2);
        fs::create_dir_all(&run).unwrap();
        fs::write(format!("{run}/{kind}-{seed:040x}"), input::random(seed, 4).encode()).unwrap();
        fs::write(format!("{run}/notes"), "no artifact").unwrap();
    }
    runs
}

/// The state of a triage without what differs from run to run.
fn judged(out: &str) -> BTreeMap<String, String> {
    let state: Value = serde_json::from_slice(&fs::read(format!("{out}/state.json")).unwrap()).unwrap();
    let inputs = state["inputs"].as_object().unwrap();
    inputs.iter().map(|(digest, entry)| (digest.clone(), entry["word"].to_string())).collect()
}

#[test]
fn artifacts_become_reports() {
    let folder = Folder::new();
    let runs = artifacts(&folder, 0..80);
    let out = folder.path("findings");
    let call = |more: &[&str]| run(&[&["triage", &runs, "--out", &out, "--no-known", "--no-programs"], more].concat());
    let first = call(&[]);
    assert!(matches!(first.status.code(), Some(0 | 1)), "{}", text(&first.stderr));
    let told = text(&first.stdout);
    assert!(told.starts_with("80 files, 0 of them judged before"), "{told}");
    let index = fs::read_to_string(format!("{out}/index.html")).unwrap();
    assert!(!index.contains("src=") && !index.contains("<link"), "the page needs something from elsewhere");
    let state: Value = serde_json::from_slice(&fs::read(format!("{out}/state.json")).unwrap()).unwrap();
    let reports = state["reports"].as_object().unwrap();
    for report in reports.values() {
        let name = report["folder"].as_str().unwrap();
        assert!(index.contains(&format!("href=\"{name}/README.md\"")), "{name}");
        let readme = fs::read_to_string(format!("{out}/{name}/README.md")).unwrap();
        assert!(readme.starts_with("# [") && readme.contains("## What the script printed"), "{readme}");
        assert!(!report["ran"].to_string().contains("shows-not"), "{readme}");
        // The input leads to the same finding.
        assert_eq!(run(&["run", "--no-known", &format!("{out}/{name}/input")]).status.code(), Some(1), "{name}");
    }
    // Nothing is judged twice, also where it is found under another name.
    let before = judged(&out);
    let copy = folder.file("crash-copy", fs::read(format!("{runs}/run0/crash-{:040x}", 0)).unwrap());
    let again = call(&[&copy]);
    assert!(text(&again.stdout).starts_with("81 files, 81 of them judged before"), "{}", text(&again.stdout));
    assert_eq!(before, judged(&out));
    // Other limits may give other words.
    let anew = call(&["--timeout", "30"]);
    assert!(text(&anew.stdout).starts_with("80 files, 0 of them judged before"), "{}", text(&anew.stdout));
}

/// The folders of a triage that is being written.
fn partial(out: &str) -> usize {
    let Ok(entries) = fs::read_dir(out) else { return 0 };
    entries.filter(|entry| entry.as_ref().unwrap().path().to_string_lossy().ends_with(".partial")).count()
}

/// The folders and words of reports.
fn reports(out: &str) -> BTreeMap<String, (String, String)> {
    let state: Value = serde_json::from_slice(&fs::read(format!("{out}/state.json")).unwrap()).unwrap();
    let reports = state["reports"].as_object().unwrap().iter();
    let words = |report: &Value| (report["folder"].to_string(), report["found"].to_string());
    reports.map(|(signature, report)| (signature.clone(), words(report))).collect()
}

#[test]
fn a_triage_that_is_stopped_goes_on() {
    let folder = Folder::new();
    let runs = artifacts(&folder, 100..160);
    let (stopped, whole) = (folder.path("stopped"), folder.path("whole"));
    let call = |out: &str| {
        let arguments = ["triage", &runs, "--out", out, "--no-known", "--no-programs", "--python", "/nonexistent"];
        Command::new(PROGRAM).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    // In the middle of the files, and in that of a report; as by `kill -9`, and as by Ctrl-C.
    for (reports, signal) in [(false, "KILL"), (true, "KILL"), (true, "INT"), (true, "KILL")] {
        let mut child = call(&stopped);
        let begun = || if reports { partial(&stopped) > 0 } else { Path::new(&stopped).join("state.json").exists() };
        while !begun() && child.try_wait().unwrap().is_none() {
            sleep(Duration::from_millis(5));
        }
        sleep(Duration::from_millis(50));
        let id = child.id().to_string();
        Command::new("kill").args(["-s", signal, &id]).stderr(Stdio::null()).status().unwrap();
        child.wait().unwrap();
    }
    for out in [&stopped, &whole] {
        assert_ne!(call(out).wait().unwrap().code(), Some(2));
        assert_eq!(partial(out), 0);
    }
    assert_eq!(judged(&stopped), judged(&whole));
    assert_eq!(reports(&stopped), reports(&whole));
    for (name, _) in reports(&whole).into_values() {
        let readme = |out: &str| fs::read(format!("{out}/{}/README.md", name.trim_matches('"'))).unwrap();
        assert!(readme(&stopped) == readme(&whole), "{name}");
    }
}

#[test]
fn files_of_other_names_are_told_of() {
    let folder = Folder::new();
    let (runs, out) = (folder.path("inputs"), folder.path("findings"));
    fs::create_dir(&runs).unwrap();
    fs::write(format!("{runs}/my-input"), input::random(0, 3).encode()).unwrap();
    let output = run(&["triage", &runs, "--out", &out, "--backend", "rten"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).contains("No file is called as artifacts are, 1 otherwise"),
        "{}",
        text(&output.stdout)
    );
    let output = run(&["triage", &format!("{runs}/my-input"), "--out", &out, "--backend", "rten"]);
    assert!(text(&output.stdout).contains("1 files, 0 of them"), "{}", text(&output.stdout));
}

#[test]
fn what_does_not_show_again_is_kept() {
    let folder = Folder::new();
    let runs = artifacts(&folder, 0..1);
    let out = folder.path("findings");
    let call = || run(&["triage", &runs, "--out", &out, "--backend", "rten"]);
    call();
    // As if the input had shown something in that first run.
    let path = format!("{out}/state.json");
    let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let (digest, entry) = state["inputs"].as_object_mut().unwrap().iter_mut().next().unwrap();
    let digest = digest.clone();
    entry["word"] = json!({"finding": {
        "bucket": "rten wrong-value Relu", "signature": "rten wrong-value Relu", "title": "[rten kernel] Relu",
        "backend": "rten", "version": "0.1.0", "level": "on", "kind": "wrong-value", "culprit": null, "cause": null,
        "operators": 1, "symptom": "y is 1", "context": null,
    }});
    fs::write(&path, state.to_string()).unwrap();
    for _ in 0..2 {
        let output = call();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("1 findings did not show again"), "{}", text(&output.stdout));
    }
    let state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let kept = format!("{out}/{}", state["fickle"]["rten wrong-value Relu"]["folder"].as_str().unwrap());
    assert!(fs::read_to_string(format!("{kept}/README.md")).unwrap().contains("y is 1"));
    assert!(Path::new(&format!("{kept}/input-{digest}")).exists());
    let index = fs::read_to_string(format!("{out}/index.html")).unwrap();
    assert!(index.contains("Not shown again") && index.contains("y is 1"), "{index}");
}

/// Some known issues take the process with them.
#[test]
fn a_backend_that_dies_is_a_finding() {
    let known = Known::built_in().unwrap();
    // Wherever the pattern is met it does.
    let issue =
        known.iter().map(|(issue, _)| issue).find(|issue| issue.id == "ort-recurrent-layer-of-nothing").unwrap();
    let dies = |seed: &u64| {
        let model = case::generate(&input::random(*seed, 3)).model;
        issue.fits(&model)
    };
    let folder = Folder::new();
    let mut files = Vec::new();
    for seed in (0..20_000).filter(dies).take(6) {
        files.push(folder.file(&format!("crash-{seed}"), input::random(seed, 3).encode()));
    }
    let out = folder.path("findings");
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    if files.is_empty() {
        return;
    }
    let output = run(&[&["triage", "--out", &out, "--no-known", "--backend", "ort"], &files[..]].concat());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let words = judged(&out);
    assert_eq!(words.len(), files.len());
    assert!(words.values().all(|word| !word.contains("defect")), "{words:#?}");
    assert!(words.values().any(|word| word.contains("the process died of")), "{words:#?}");
}

#[test]
fn triage_tells_what_it_cannot_use() {
    let folder = Folder::new();
    let out = folder.path("findings");
    fails(&["triage", &folder.path("missing"), "--out", &out], &["missing", "No such file"]);
    let empty = folder.path("empty");
    fs::create_dir(&empty).unwrap();
    assert!(print(&["triage", &empty, "--out", &out]).starts_with("0 files"));
    let file = folder.file("file", "");
    fails(&["triage", &empty, "--out", &file], &["cannot write", &file]);
    fs::write(format!("{out}/state.json"), "{").unwrap();
    fails(&["triage", &empty, "--out", &out], &["state.json", "remove it"]);
    fails(&["triage", &empty, "--out", &folder.path("other"), "--backend", "none"], &["`none`"]);
}
