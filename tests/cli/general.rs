//! What every command has in common, and the small commands.

use crate::{Folder, PROGRAM, fails, json, print, run, text};
use graphsmith::input;
use std::fs::{self, File};
use std::io::Read;
use std::process::{Command, Stdio};

#[test]
fn every_command_explains_itself() {
    let help = print(&["--help"]);
    for command in ["gen", "show", "run", "replay", "minimise", "triage", "ops", "backends", "probe", "dictionary"] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
        assert!(print(&[command, "--help"]).contains("Example"), "{command}");
    }
    assert!(!help.contains("-worker"));
    assert_eq!(run(&["no-such-command"]).status.code(), Some(2));
}

#[test]
fn a_reader_that_stops_early_is_no_error() {
    let mut child = Command::new(PROGRAM).arg("ops").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut errors = String::new();
    child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
    assert!(child.wait().unwrap().success() && errors.is_empty(), "{errors}");
}

#[test]
fn a_full_output_is_an_error() {
    let Ok(full) = File::create("/dev/full") else { return };
    let output = Command::new(PROGRAM).arg("ops").stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("standard output"));
}

#[test]
fn operators_are_listed() {
    let all = json(&["ops", "--json"]);
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), graphsmith::ops::ALL.len());
    let (table, page) = (print(&["ops"]), print(&["ops", "--markdown"]));
    for operator in all {
        let name = operator["name"].as_str().unwrap();
        assert!(table.contains(&format!(" {name} ")) && page.contains(&format!("| {name} |")), "{name}");
    }
}

#[test]
fn backends_are_listed_also_without_the_library() {
    let all = json(&["backends", "--json"]);
    for backend in all.as_array().unwrap() {
        assert!(backend["version"].as_str().unwrap().contains('.'), "{backend}");
    }
    let output = Command::new(PROGRAM).arg("backends").env("ORT_DYLIB_PATH", "/nonexistent").output().unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success() && shown.contains("ORT_DYLIB_PATH") && shown.contains("\ntract "), "{shown}");
}

#[test]
fn a_missing_library_is_named_and_can_be_done_without() {
    let folder = Folder::new();
    let input = folder.file("input", input::random(3, 5).encode());
    let call = |more: &[&str]| {
        Command::new(PROGRAM).args(["run", &input]).args(more).env("ORT_DYLIB_PATH", "/nonexistent").output().unwrap()
    };
    let output = call(&[]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        errors.lines().count() == 1 && errors.contains("ORT_DYLIB_PATH") && errors.contains("--backend"),
        "{errors}"
    );
    assert_ne!(call(&["--backend", "tract"]).status.code(), Some(2));
    fails(&["run", &input, "--backend", "none"], &["`none`"]);
}

#[test]
fn the_committed_dictionary_is_fresh() {
    let committed = include_str!("../../dictionaries/graph_diff.dict");
    let fresh = print(&["dictionary"]);
    assert!(committed == fresh, "run: cargo run -- dictionary > dictionaries/graph_diff.dict");
    for line in fresh.lines().filter(|line| !line.starts_with('#')) {
        let (_, record) = line.split_once('=').unwrap();
        assert_eq!(record.matches("\\x").count(), input::RECORD_BYTES, "{line}");
    }
}

#[test]
fn locality_reports_every_mutation() {
    let report = print(&["locality", "--count", "3", "--records", "4"]);
    let rows = graphsmith::mutate::TABLE.len();
    assert_eq!(report.lines().count(), rows + 3, "headings, one byte, and all as drawn: {report}");
    assert!(graphsmith::mutate::TABLE.iter().all(|row| report.contains(row.doc)), "{report}");
    assert_eq!(report, print(&["locality", "--count", "3", "--records", "4"]), "the same on every run");
}

#[test]
fn support_tables_are_probed() {
    let folder = Folder::new();
    let out = folder.0.path().to_str().unwrap();
    let write = format!("--write={out}");
    let table = |operator: &str| {
        print(&["probe", "--backend", "tract", "--operator", operator, "--count", "20", &write]);
        fs::read_to_string(folder.path("tract.toml")).unwrap()
    };
    let first = table("Relu");
    assert!(first.starts_with("# Made by `graphsmith probe --write`; do not edit.\n"), "{first}");
    assert_eq!(first, table("Relu"));
    // The other operators' forms stay.
    let both = table("Add");
    assert!(both.contains("[operators.\"Add 1") && both.contains("[operators.\"Relu 1"), "{both}");
    fs::write(folder.path("tract.toml"), both.replace("version = \"", "version = \"9")).unwrap();
    fails(&["probe", "--backend", "tract", "--operator", "Add", "--count", "1", &write], &["probe all"]);
    fails(&["probe", "--operator", "NoSuchOperator"], &["NoSuchOperator"]);
    fails(&["probe", "--write=/nonexistent"], &["/nonexistent"]);
}
