//! `scripts/bisect-release`, as far as it can be tried without releases.

use crate::{Folder, floats, sum, text};
use std::process::Command;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/bisect-release");

/// What a search says of releases whose answers are known: `bad`, `right`, `refused` or `broken`.
const SEARCH: &str = r###"
import importlib.machinery, importlib.util, pathlib, sys
loader = importlib.machinery.SourceFileLoader("bisect_release", sys.argv[1])
script = importlib.util.module_from_spec(importlib.util.spec_from_loader("bisect_release", loader))
loader.exec_module(script)
kinds = {"bad": "wrong-value", "right": "agrees", "refused": "refused", "broken": "not run"}
words = sys.argv[3].split()
class Judge:
    def answer(self, release):
        return script.Answer(kinds[words[int(release) - 1]])
search = script.Search(Judge(), [str(index + 1) for index in range(len(words))], int(sys.argv[2]) - 1)
print(script.sentence(search, *search.first_bad()))
print(len(search.answers))
readme = pathlib.Path(sys.argv[4])
readme.write_text("# Title\n\n## Reproduce\n\nSo.\n")
for summary in ("one", "two"):
    script.amend(readme, "ort", summary, [("1.0", "bad", "a | b")])
"###;

fn search(end: usize, words: &str) -> (String, usize, String) {
    let folder = Folder::new();
    let readme = folder.path("README.md");
    let folder_of_modules = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");
    let mut python = Command::new("python3");
    python.args(["-B", "-c", SEARCH, SCRIPT, &end.to_string(), words, &readme]).env("PYTHONPATH", folder_of_modules);
    let done = python.output().unwrap();
    assert!(done.status.success(), "{}", text(&done.stderr));
    let told = text(&done.stdout);
    let (summary, asked) = told.trim().split_once('\n').unwrap();
    (summary.to_owned(), asked.parse().unwrap(), std::fs::read_to_string(readme).unwrap())
}

#[test]
fn the_first_bad_release_is_found() {
    for (end, words, told) in [
        (5, "right right right bad bad", "first bad 4 (3 is right)"),
        (5, "bad bad bad bad bad", "bad since 1, the oldest that can be tried"),
        (6, "refused refused refused bad bad bad", "bad since 4, the oldest that can be tried"),
        (6, "refused refused right bad bad bad", "first bad 4 (3 is right)"),
        (6, "right right broken broken bad bad", "first bad 5 (2 is right, 3 and 4 cannot be tried)"),
        (6, "broken broken broken broken right bad", "first bad 6 (5 is right)"),
        (5, "right right broken right bad right", "first bad 5 (4 is right); right again in 6"),
        (1, "bad", "bad since 1, the oldest that can be tried"),
    ] {
        let (summary, asked, readme) = search(end, words);
        assert_eq!(summary, told, "{words}");
        assert!(asked <= 6, "{asked} of {words}");
        assert_eq!(
            readme,
            "# Title\n\n## Releases\n\nort: two.\n\n| release | answer | |\n|---|---|---|\n| 1.0 | bad | a \\| b |\n\n\
             ## Reproduce\n\nSo.\n"
        );
    }
    let (summary, asked, _) = search(100, &("right ".repeat(40) + &"bad ".repeat(60)));
    assert_eq!(summary, "first bad 41 (40 is right)");
    assert!(asked <= 9, "{asked} releases were asked");
}

#[test]
fn what_cannot_be_searched_is_told() {
    let folder = Folder::new();
    let fails = |arguments: &[&str], part: &str| {
        let output = Command::new(SCRIPT).args(arguments).output().unwrap();
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.lines().count() == 1 && errors.contains(part), "{errors}");
    };
    fails(&[&folder.path("missing")], "has no model.onnx");
    folder.file("model.onnx", sum());
    folder.npz("inputs.npz", &[("a", floats(&[2, 3])), ("b", floats(&[3]))]);
    let here = folder.path("");
    fails(&[&here], "add --runtime");
    fails(&[&here, "--runtime", "none"], "`none`");
}
