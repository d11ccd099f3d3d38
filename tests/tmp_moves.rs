use graphsmith::backend::{self, Level};
use graphsmith::case::{Case, Generated};
use graphsmith::graph;
use graphsmith::input::{self, Stream};
use graphsmith::swarm::Swarm;
use graphsmith::{ops, reference};
use std::collections::BTreeMap;
use std::io::Write;

#[test]
fn dump() {
    let _guard = reference::init();
    let n: u64 = std::env::var("CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let only = std::env::var("OPERATOR").ok();
    let before = std::env::var("BEFORE").ok();
    let dump = std::env::var("DUMP").ok();
    let show = std::env::var("SHOW").is_ok();
    let backends = backend::all().unwrap();
    let mut index = dump.as_ref().map(|d| {
        std::fs::create_dir_all(d).unwrap();
        std::fs::File::create(format!("{d}/index.txt")).unwrap()
    });
    let mut stream = Stream::new(5);
    for spec in ops::ALL.iter().copied().filter(|s| (0x80..=0xcf).contains(&s.code)) {
        if only.as_ref().is_some_and(|o| o != spec.name) {
            continue;
        }
        let (mut valid, mut kept, mut judged, mut elements, mut suspect, mut empty) = (0, 0, 0, 0, 0, 0);
        let mut wrongs: BTreeMap<String, usize> = BTreeMap::new();
        let (mut hints, mut solver) = (0, 0);
        for seed in 0..n {
            let mut input =
                input::random(seed << 8 | u64::from(spec.code) | 7 << 40, if before.is_some() { 3 } else { 1 });
            if before.is_some() {
                input.header[4] = 0;
                input.header[5] = 0;
                input.header[7] = 255;
                input.header[0] = 0;
            }
            let first = input.records[0][0];
            let _ = first;
            let pre = before.as_deref().and_then(ops::by_name);
            let count = std::cell::Cell::new(0);
            let total = input.records.len();
            let g = graph::grow_with(&Swarm::new(&input.header), &input.records, |_| {
                count.set(count.get() + 1);
                if count.get() == total { spec } else { pre.unwrap_or(spec) }
            });
            if !g.fates.iter().all(|f| f.is_ok()) {
                continue;
            }
            kept += 1;
            hints += g.laws.by_hints;
            solver += g.laws.by_solver;
            let model = g.model();
            let generated = Generated { model, seed, fates: vec![], by_hints: 0, by_solver: 0 };
            let case = match Case::new(generated).unwrap() {
                Ok(c) => c,
                Err(_) => continue,
            };
            valid += 1;
            judged += case.expectation.judged;
            elements += case.expectation.elements;
            suspect += case.expectation.suspect;
            if case.expectation.suspect > 0 && show {
                println!("SUSPECT {} {}", spec.name, graph::text(&case.model));
            }
            if case.model.outputs.iter().any(|&v| case.model.values[v].is_empty()) {
                empty += 1;
            }
            if let (Some(dump), Some(index)) = (&dump, &mut index) {
                let name = format!("{}_{seed}", spec.name);
                std::fs::write(format!("{dump}/{name}.onnx"), &case.onnx).unwrap();
                for (k, (_, data)) in case.model.inputs().zip(case.model.input_data(&case.data)).enumerate() {
                    std::fs::write(format!("{dump}/{name}.in{k}"), &data.bytes).unwrap();
                    writeln!(index, "in {name} {k} {} {:?}", data.dtype, data.shape).unwrap();
                }
                for (k, e) in case.expectation.outputs.iter().enumerate() {
                    let f = |v: &[f64]| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
                    std::fs::write(format!("{dump}/{name}.out{k}"), f(&e.exact)).unwrap();
                    std::fs::write(format!("{dump}/{name}.tol{k}"), f(&e.allowed)).unwrap();
                    writeln!(index, "out {name} {k} {} {:?}", e.dtype, e.shape).unwrap();
                }
            }
            let inputs = case.model.input_data(&case.data);
            for b in &backends {
                for level in Level::ALL {
                    let r = b.compile(&case.onnx, level).and_then(|mut s| s.run(&inputs));
                    let what = match &r {
                        Ok(o) => match case.expectation.compare(o) {
                            None => "ok".into(),
                            Some(d) => {
                                if show {
                                    println!(
                                        "--- {} {} {level}: {d:?}\n{}",
                                        spec.name,
                                        b.id(),
                                        graph::text(&case.model)
                                    );
                                    if let graphsmith::oracle::Difference::Value { output, element, .. } = &d {
                                        let e = &case.expectation.outputs[*output];
                                        println!("exact {} allowed {:?}", e.exact[*element], e.allowed.get(*element));
                                    }
                                }
                                match d {
                                    graphsmith::oracle::Difference::Value { .. } => "VALUE",
                                    _ => "SHAPE",
                                }
                                .to_string()
                            }
                        },
                        Err(e) => {
                            if show && std::env::var("REF").is_ok() {
                                println!("--- {} {} {level}: {e}\n{}", spec.name, b.id(), graph::text(&case.model));
                            }
                            "err".into()
                        }
                    };
                    *wrongs.entry(format!("{}-{}", b.id(), what)).or_default() += 1;
                }
            }
        }
        println!(
            "{:26} kept {kept} hints/solver {hints}/{solver} valid {valid} judged {:.2} suspect {suspect} empty {empty} {wrongs:?}",
            spec.name,
            judged as f64 / elements.max(1) as f64
        );
    }
    let _ = stream.next_u64();
}
