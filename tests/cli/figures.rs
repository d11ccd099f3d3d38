//! `graphsmith ablate` and `graphsmith sweep --stages`.

use super::print;

/// The rows are the methods of [`graphsmith::search::METHODS`], for both kinds of models; the last is the whole method.
#[test]
fn ablation_compares_every_method() {
    let report = print(&["ablate", "--count", "4", "--records", "4"]);
    let valid = |line: &str| -> f64 {
        let cells: Vec<&str> = line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
        cells[2].trim_end_matches(" %").parse().unwrap()
    };
    for kind in ["vulnerable", "default"] {
        let (_, table) = report.split_once(&format!("{kind} models of ")).unwrap();
        let rows: Vec<&str> = table.lines().skip(2).take(graphsmith::search::METHODS.len()).collect();
        let names = graphsmith::search::METHODS.iter().map(|method| method.name);
        assert!(names.zip(&rows).all(|(name, row)| row.starts_with(name)), "{report}");
        let (first, whole) = (valid(rows[0]), valid(rows[rows.len() - 1]));
        assert!(first <= whole && whole > 0.0, "{report}");
    }
}

/// Clocks only measure: what is found does not depend on them.
#[test]
fn stages_of_a_sweep_add_up() {
    let call = ["sweep", "--count", "3", "--records", "4", "--seed", "7"];
    let plain = print(&call);
    let measured = print(&[&call[..], &["--stages"]].concat());
    let (found, stages) = measured.split_once("\nCPU milliseconds a case").unwrap();
    assert_eq!(found, plain);
    let row = |name: &str| stages.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{stages}"));
    let cells = |name: &str| -> Vec<f64> {
        let numbers = row(name)[name.len()..].split_whitespace().filter_map(|cell| cell.parse().ok());
        numbers.collect()
    };
    let parts = ["input search", "export", "judging"].map(|name| cells(name)[0]);
    assert!(parts.iter().sum::<f64>() <= cells("all")[0], "{stages}");
    assert_eq!(cells("all")[2], 100.0, "{stages}");
    assert!(stages.lines().any(|line| line.starts_with("inside the backends")), "{stages}");
    assert_eq!(stages.lines().filter(|line| line.trim_start().starts_with("seed ")).count(), 3, "{stages}");
}
