//! `graphsmith gen`.

use crate::{Folder, fails, json, print};
use graphsmith::npz::{self, Arrays};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

fn files(folder: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for model in fs::read_dir(folder).unwrap() {
        for file in fs::read_dir(model.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            all.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
        }
    }
    all
}

#[test]
fn generated_models_are_reproducible_and_judged() {
    let folder = Folder::new();
    let (first, second) = (folder.path("first"), folder.path("second"));
    for out in [&first, &second] {
        print(&["gen", "--count", "6", "--out", out, "--seed", "9", "--operators", "5"]);
    }
    let written = files(&first);
    assert_eq!(written.len(), 18);
    assert!(written == files(&second), "two runs with one seed differ");
    fails(&["gen", "--count", "1", "--out", &first], &["not empty", "--force"]);
    print(&["gen", "--count", "1", "--out", &first, "--seed", "10", "--force"]);
    assert_eq!(files(&first).len(), 18);
    let reports = json(&["run", "--json", &format!("{second}/0000"), &format!("{second}/0001")]);
    for report in reports.as_array().unwrap() {
        // Which of them a backend gets wrong is not this test's concern.
        assert!(["agree", "known", "finding"].contains(&report["verdict"].as_str().unwrap()), "{report:#}");
        assert!(report["answers"].as_array().unwrap().len() >= 2, "{report:#}");
    }
    let shown = print(&["show", &format!("{second}/0000/model.onnx")]);
    assert!(shown.contains("->"), "{shown}");
}

#[test]
fn what_is_expected_is_what_the_model_declares() {
    let folder = Folder::new();
    let out = folder.path("models");
    print(&["gen", "--count", "8", "--out", &out, "--operators", "3"]);
    for model in fs::read_dir(&out).unwrap() {
        let model = model.unwrap().path();
        let proto = graphsmith::onnx::decode(&fs::read(model.join("model.onnx")).unwrap()).unwrap();
        let graph = proto.graph.unwrap();
        for (file, infos) in [("inputs.npz", &graph.input), ("expected.npz", &graph.output)] {
            let arrays: Arrays = npz::read(&model.join(file)).unwrap();
            assert_eq!(arrays.len(), infos.len());
            for info in infos {
                let value = graphsmith::onnx::value(info, 0).unwrap();
                let array = &arrays[&info.name];
                assert_eq!((array.dtype, &array.shape), (value.dtype, &value.shape), "{}", info.name);
            }
        }
    }
}

#[test]
fn generation_needs_a_folder_it_can_write() {
    let folder = Folder::new();
    let file = folder.file("file", "");
    fails(&["gen", "--count", "1", "--out", &file], &[&file, "is a file"]);
    fails(&["gen", "--count", "1", "--out", &format!("{file}/below")], &["cannot write"]);
}
